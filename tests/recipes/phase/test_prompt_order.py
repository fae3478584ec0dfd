"""What a phase draws: mixes in turn, solved prompts skipped, groups that span rewrites, and the best and worst of a group."""

import math
from types import SimpleNamespace

import pytest
import torch
from tests.training.helpers import LowCodes, grpo_config, policy_dir, rows_without_times

from thinkdraw.objectives import combine, group_normalized
from thinkdraw.recipes import grpo
from thinkdraw.recipes.phase.advantages import keep_extremes
from thinkdraw.recipes.phase.prompt_order import HistorySettings, PromptOrder
from thinkdraw.recipes.phase.rollout import prompt_wordings, sample_phase
from thinkdraw.rewards.user_rewards import as_reward
from thinkdraw.training.batch import Batch
from thinkdraw.training.run import open_policy
from thinkdraw.training.world import World
from thinkdraw.types import Prompt, Verdicts

EASY, HARD, NEW = ([Prompt(f"{word} {i}", f"{word}-{i}") for i in range(4)] for word in ("easy", "hard", "new"))


def ids(prompts):
    return [p.id for p in prompts]


def order(history=None, mixes=None):
    return PromptOrder(mixes or [(None, EASY)], 0, history)


def test_every_pass_draws_each_prompt_once_in_another_order():
    o = order()
    first, second = o.take(4, 0), o.take(4, 1)
    assert set(ids(first)) == set(ids(second)) == set(ids(EASY)) and ids(first) != ids(second)
    assert ids(order().take(4, 0)) == ids(first)


def test_mixes_follow_each_other_and_the_last_stays():
    o = order(mixes=[(2, EASY), (1, HARD), (None, NEW)])
    words = [{p.id.split("-")[0] for p in o.take(2, phase)} for phase in range(5)]
    assert words == [{"easy"}, {"easy"}, {"hard"}, {"new"}, {"new"}]


def test_solved_prompts_are_skipped_mixed_and_failed_ones_kept():
    o = order(HistorySettings(solved_reward=1.0, readmit_frac=0))
    rewards = torch.tensor(
        [[1.0, 1.0], [1.0, 0.0], [0.0, 0.0], [1.0, math.nan]]
    )  # the last is solved as far as is known
    o.record(EASY, rewards, 0)
    assert o.num_solved == 2 and o.table["easy 1"] == {"mean": 0.5, "std": 0.5, "min": 0.0, "max": 1.0, "phase": 0}
    assert set(ids(o.take(8, 1))) == {"easy-1", "easy-2"} and o.skipped > 0
    o.record(EASY[:1], torch.tensor([[1.0, 0.5]]), 2)  # forgotten again
    assert set(ids(o.take(9, 3))) == {"easy-0", "easy-1", "easy-2"}


def test_no_verdict_changes_nothing():
    o = order(HistorySettings(solved_reward=0.5))
    o.record(EASY[:1], torch.full((1, 2), math.nan), 0)
    assert o.table == {}


def test_some_solved_prompts_are_readmitted():
    o = order(HistorySettings(solved_reward=1.0, readmit_frac=0.3))
    o.record(EASY[:1], torch.ones(1, 2), 0)
    drawn = [p.id for _ in range(100) for p in o.take(4, 1)]
    assert 0.2 < drawn.count("easy-0") / (len(drawn) / 4) < 0.45


def test_a_mix_that_is_all_solved_is_drawn_all_the_same():
    o = order(HistorySettings(solved_reward=1.0, readmit_frac=0))
    o.record(EASY, torch.ones(4, 2), 0)
    assert len(o.take(6, 1)) == 6


def test_the_table_survives_a_restart():
    o = order(HistorySettings(solved_reward=1.0))
    o.record(EASY[:2], torch.tensor([[1.0, 1.0], [0.1, 0.7]]), 3)
    o.take(3, 4)
    again = order(HistorySettings(solved_reward=1.0))
    again.load_state_dict(o.state_dict())
    assert again.table == o.table and ids(again.take(7, 5)) == ids(o.take(7, 5)) and again.skipped == o.skipped


def test_a_run_with_history_stages_and_rewrites_resumes_to_the_same_numbers(tmp_path):
    settings = {
        "stages": [{"phases": 1, "prompts": {"count": 6, "families": {"dense": 1.0}}}],
        "history": {"solved_reward": 0.2},
        "rewrites": "pool",
        "keep_extremes": 1,
        "prompts": {"count": 4},
        "sampling": {"max_thought_tokens": 4},
        "save_every": 2,
    }
    policy = policy_dir(tmp_path)
    whole = grpo.run(grpo_config(tmp_path / "whole", policy, max_steps=4, **settings))
    config = grpo_config(tmp_path / "parts", policy, max_steps=2, **settings)
    grpo.run(config)
    parts = grpo.run(config.model_copy(update={"max_steps": 4}))
    rows = rows_without_times(parts)
    assert rows == rows_without_times(whole)
    assert rows[-1]["prompts_solved"] > 0 and rows[-1]["prompts_skipped"] > 0


def test_a_group_spans_the_rewrites_of_its_prompt_and_has_one_baseline(tmp_path):
    config = grpo_config(tmp_path, policy_dir(tmp_path), rewrites="pool", group_size=4, prompts_per_phase=6)
    world = World(config)
    prompts = PromptOrder.of(config.prompts, [], 0, None)
    phase = sample_phase(open_policy(config, world), as_reward(LowCodes()), prompts, config, 0, world)
    part = phase.batch
    assert part.rollouts.group_size == 4 and len(part.rollouts) == 24
    texts = [[p.text for p in part.rollouts.prompts[i : i + 4]] for i in range(0, 24, 4)]
    assert all(len({p.id for p in part.rollouts.prompts[i : i + 4]}) == 1 for i in range(0, 24, 4))
    assert any(len(set(group)) == 2 for group in texts)
    assert torch.equal(part.advantages.values, group_normalized(part.rewards, 4).values)


def test_rewrites_come_in_turn_and_in_another_order_each_phase():
    include = tuple({"class": name, "count": 1} for name in ("dog", "cat", "cow"))
    prompt = Prompt("a dog, a cat and a cow", "x", include=include)
    first, second = ([p.text for p in prompt_wordings([prompt], 8, phase, 0)] for phase in (0, 1))
    assert first[0] == first[6] == prompt.text and len(set(first)) == 6 and first != second


@pytest.mark.parametrize("keep", [1, 2])
def test_only_the_best_and_worst_of_a_group_are_learned_from(tmp_path, keep):
    config = grpo_config(tmp_path, policy_dir(tmp_path), group_size=5, prompts_per_phase=2)
    world = World(config)
    batch = sample_phase(
        open_policy(config, world), as_reward(LowCodes()), PromptOrder.of(config.prompts, [], 0, None), config, 0, world
    ).batch
    rewards = torch.tensor([0.3, 0.1, 0.5, 0.2, 0.4, math.nan, 0.9, 0.1, 0.2, 0.3])
    judged = Batch(batch.rollouts, Verdicts.of(rewards), group_normalized(rewards, 5))
    filtered = keep_extremes(judged, keep)
    wanted = {1: [1, 2, 6, 7], 2: [1, 2, 3, 4, 6, 7, 8, 9]}[keep]
    assert filtered.advantages.valid.nonzero().flatten().tolist() == wanted
    assert torch.equal(filtered.advantages.values, judged.advantages.values)


def test_the_extremes_are_those_of_the_advantages_and_not_of_a_sum_that_is_not_learned_from():
    # Parts (.30, .20, .29, .21) and (0, 10, 9, 1): by their sum rows 0 and 1 are the extremes, whose gdpo advantage is 0.
    parts = {"clip": torch.tensor([0.30, 0.20, 0.29, 0.21]), "human": torch.tensor([0.0, 10.0, 9.0, 1.0])}
    advantages = combine(parts, 4, {"clip": 1.0, "human": 1.0}, how="gdpo")
    rollouts = SimpleNamespace(group_size=4)  # all that is read of them
    filtered = keep_extremes(Batch(rollouts, Verdicts.of(parts["clip"] + parts["human"]), advantages), 1)
    assert filtered.advantages.valid.tolist() == [False, False, True, True]


def test_what_is_solved_is_known_by_its_text_for_ids_are_line_numbers_of_several_files():
    easy, hard = [Prompt(text="a circle", id="1")], [Prompt(text="three circles", id="1")]
    order = PromptOrder([(1, easy), (None, hard)], 0, HistorySettings(solved_reward=1.0, readmit_frac=0.0))
    order.record(easy, torch.tensor([[1.0, 1.0]]), 0)
    assert order.num_solved == 1 and not order._is_solved(hard[0])
