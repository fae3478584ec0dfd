import math

import pytest
import torch
from tests.benchmarks.stub import rollouts
from tests.rewards.judges import Brightness, Questions

from thinkdraw.errors import UserError
from thinkdraw.objectives.several_rewards import combine
from thinkdraw.rewards import load_reward
from thinkdraw.types import Prompt, Question

NAN = math.nan
ASKED, PLAIN = Prompt("a", questions=(Question(1, "a?"),)), Prompt("b")


def batch(prompts, firsts, group_size=1):
    firsts = torch.tensor(firsts, dtype=torch.uint8)
    rows = rollouts(prompts, firsts[:, None, None, None].expand(-1, 4, 4, 3).contiguous(), [""] * len(prompts))
    return rows.select(range(len(prompts)), group_size)


def both(answers, **settings):
    questions = load_reward("questions", questioner=Questions({"a?": answers}))
    return load_reward(
        "combined", rewards={"bright": load_reward("score", scorer=Brightness()), "asked": questions}, **settings
    )


def test_the_sum_is_weighted_and_what_does_not_apply_adds_nothing():
    reward, rows = both(0.5, weights={"asked": 2}), batch([ASKED, PLAIN], [10, 20])
    assert reward(rows).rewards.tolist() == pytest.approx([0.1 + 2 * 0.5, 0.2])
    assert reward.name == "combined"


def test_a_missing_verdict_spreads_to_the_sum_but_a_prompt_without_questions_does_not():
    # first: no answer; second: nothing to ask; third: the scorer fails
    reward, rows = both([NAN, 0.5]), batch([ASKED, PLAIN, ASKED], [10, 20, 255])
    assert reward(rows).rewards.tolist() == pytest.approx([NAN, 0.2, NAN], nan_ok=True)


def test_a_component_of_weight_0_is_shown_and_not_counted():
    reward, rows = both(NAN, weights={"asked": 0}), batch([ASKED], [10])
    assert reward(rows).rewards.tolist() == pytest.approx([0.1])
    assert list(reward(rows).parts) == ["bright", "asked"]


def test_a_row_to_which_nothing_applies_has_no_reward_and_is_no_failure():
    questions = load_reward("questions", questioner=Questions({"a?": 0.5}))
    reward, rows = load_reward("combined", rewards={"asked": questions}), batch([PLAIN, ASKED], [1, 2])
    verdicts = reward(rows)
    assert verdicts.rewards.tolist() == pytest.approx([NAN, 0.5], nan_ok=True)
    assert verdicts.applies.tolist() == [False, True]


def test_parts_are_raw_and_judged_once():
    reward, rows = both([0.5]), batch([ASKED, PLAIN], [10, 20])  # a second question would find no answer
    parts = {name: values.tolist() for name, values in reward(rows).parts.items()}
    assert parts["bright"] == pytest.approx([0.1, 0.2]) and parts["asked"] == pytest.approx([0.5, NAN], nan_ok=True)


def test_parts_and_where_they_apply_are_what_gdpo_takes():
    # group of "b" has no question; in it the advantage is that of brightness alone: ±0.7071 each after std with n − 1
    reward = both([0.9, 0.1])
    rows = batch([ASKED, ASKED, PLAIN, PLAIN], [10, 10, 20, 30], group_size=2)
    verdicts = reward(rows)
    advantages = combine(verdicts.parts, 2, reward.weights, applies=verdicts.part_applies, batch_stats=(0.0, 1.0))
    assert advantages.values.tolist() == pytest.approx([0.7071, -0.7071, -0.7071, 0.7071], abs=2e-3)
    assert advantages.num_no_verdict == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rewards": {}}, "no rewards to combine"),
        ({"rewards": {"a": None}, "weights": {"b": 1}}, "weights for b, but the rewards are a"),
        ({"rewards": {"a": None}, "weights": {"a": 0}}, "all weights are 0"),
    ],
)
def test_what_cannot_be_combined_is_said(settings, message):
    with pytest.raises(UserError, match=message):
        load_reward("combined", **settings)
