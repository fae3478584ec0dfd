import math

import pytest
import torch
from tests.benchmarks.stub import rollouts
from tests.rewards.judges import Questions

from thinkdraw.errors import UserError
from thinkdraw.rewards import load_reward
from thinkdraw.rewards.questions import question_points
from thinkdraw.types import Prompt, Question

NAN = math.nan
DOG = Prompt("a red dog", questions=(Question(1, "a dog?"), Question(2, "red?", (1,)), Question(3, "grass?")))
BARE = Prompt("a cat")


def batch(*prompts):
    return rollouts(prompts, torch.zeros(len(prompts), 8, 8, 3, dtype=torch.uint8), [""] * len(prompts))


def test_the_reward_is_the_mean_of_p_yes_or_their_product():
    judge = Questions({"a dog?": 0.9, "red?": 0.6, "grass?": 0.3})
    assert load_reward("questions", questioner=judge)(batch(DOG)).rewards.item() == pytest.approx((0.9 + 0.6 + 0.3) / 3)
    product = load_reward("questions", questioner=judge, combine="product")(batch(DOG))
    assert product.rewards.item() == pytest.approx(0.9 * 0.6 * 0.3)


@pytest.mark.parametrize(
    ("answers", "counts"),
    [
        ([0.9, 0.8, 0.7], [0.9, 0.8, 0.7]),
        ([0.4, 0.8, 0.7], [0.4, 0.0, 0.7]),  # no dog, so that a red one counts nothing
        ([0.5, 0.8, 0.7], [0.5, 0.8, 0.7]),  # one half is a yes
        ([NAN, 0.8, 0.7], [NAN, NAN, 0.7]),  # whether its being red counts is not known
        ([0.4, NAN, 0.7], [0.4, 0.0, 0.7]),  # it counts 0 whatever it is
        ([0.9, NAN, 0.7], [0.9, NAN, 0.7]),
    ],
)
def test_a_question_counts_only_if_what_it_depends_on_is_true(answers, counts):
    assert question_points(DOG, torch.tensor(answers)).tolist() == pytest.approx(counts, nan_ok=True)


def test_a_no_passes_down_a_chain_whatever_the_order_of_the_questions():
    chain = Prompt("x", questions=(Question(3, "c", (2,)), Question(2, "b", (1,)), Question(1, "a")))
    assert question_points(chain, torch.tensor([0.9, 0.9, 0.1])).tolist() == pytest.approx([0, 0, 0.1])


def test_of_two_parents_a_no_decides_where_the_other_has_no_verdict():
    both = Prompt("x", questions=(Question(1, "a"), Question(2, "b"), Question(3, "c", (1, 2))))
    assert question_points(both, torch.tensor([NAN, 0.2, 0.9])).tolist() == pytest.approx([NAN, 0.2, 0], nan_ok=True)


def test_a_prompt_without_questions_is_not_judged_and_is_no_failure():
    judge = Questions({"a dog?": 1.0, "red?": 1.0, "grass?": 1.0})
    reward = load_reward("questions", questioner=judge)
    rows = batch(BARE, DOG)
    verdicts = reward(rows)
    assert verdicts.rewards.tolist() == pytest.approx([NAN, 1.0], nan_ok=True)
    assert verdicts.applies.tolist() == [False, True]
    assert judge.asked == ["a dog?", "red?", "grass?"]


def test_an_answer_that_is_missing_makes_its_own_picture_nan_and_no_other():
    judge = Questions({"a dog?": [1.0, 1.0], "red?": [NAN, 1.0], "grass?": [1.0, 0.4]})
    assert load_reward("questions", questioner=judge)(batch(DOG, DOG)).rewards.tolist() == pytest.approx(
        [NAN, 0.8], nan_ok=True
    )


@pytest.mark.parametrize("parents", [(1,), (7,)])
def test_a_dependency_on_itself_or_on_nothing_is_named(parents):
    prompt = Prompt("x", questions=(Question(1, "a", parents),))
    with pytest.raises(UserError, match=r"question \d (depends on itself|is none of its questions)"):
        question_points(prompt, torch.tensor([1.0]))


def test_an_unknown_way_to_combine_is_refused():
    with pytest.raises(UserError, match="combine='sum' is unknown: choose mean or product"):
        load_reward("questions", questioner=Questions({}), combine="sum")
