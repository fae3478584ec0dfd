"""Parts, minibatches and processes with nothing to learn from pass through every recipe: none of the work is done for no rows."""

import dataclasses
import math
from collections import Counter
from functools import partial

import pytest
import torch
from tests.training.helpers import LowCodes, grpo_config, rows_without_times

from thinkdraw.objectives import Pairs, SegmentCounts
from thinkdraw.recipes import grpo
from thinkdraw.recipes.phase.advantages import add_group_advantages, finish_advantages, keep_extremes, summed_log_ratio
from thinkdraw.recipes.phase.prompt_order import PromptOrder
from thinkdraw.recipes.phase.rollout import sample_phase
from thinkdraw.recipes.phase.stats import phase_stats
from thinkdraw.recipes.phase.token_credit import batched_log_probs
from thinkdraw.recipes.preference import PairBatch, PreferenceConfig
from thinkdraw.recipes.verifier import LabelledQuestions
from thinkdraw.rewards.user_rewards import as_reward
from thinkdraw.training.batch import Batch, split_rows
from thinkdraw.training.judged_store import with_cached_log_probs
from thinkdraw.training.run import backward, open_policy
from thinkdraw.training.world import World
from thinkdraw.types import Rollouts, Verdicts

NOBODY = torch.zeros(0, dtype=torch.long)


class SomePrompts(LowCodes):
    """Has nothing to say of every prompt but the fifth."""

    calls = 0

    def __call__(self, rollouts: Rollouts) -> Verdicts:
        rewards = super().__call__(rollouts)
        applies = torch.zeros(len(rollouts), dtype=torch.bool)
        applies[: rollouts.group_size] = self.calls % 5 == 4
        self.calls += 1
        return Verdicts.of(rewards.masked_fill(~applies, math.nan), applies)


@pytest.fixture
def config(tmp_path, policy) -> grpo.GrpoConfig:
    return grpo_config(tmp_path, policy)


@pytest.fixture
def model(config):
    return open_policy(config, World(config))


def drawn(config, model, reward=None) -> Batch:
    order = PromptOrder.of(config.prompts, [], 0, None)
    phase = sample_phase(model, as_reward(reward or LowCodes()), order, config, 0, World(config))
    return finish_advantages(model, phase.batch, config, World(config))


def test_rows_come_in_parts_and_no_rows_in_none():
    assert [part.tolist() for part in split_rows(torch.arange(5), 2)] == [[0, 1], [2, 3], [4]]
    assert list(split_rows(NOBODY, 2)) == []


@pytest.mark.parametrize("changes", [{"judge_chunks": 3}, {"minibatches": 3}, {"judge_chunks": 2, "minibatches": 2}])
def test_a_reward_that_applies_to_few_prompts_trains_in_any_number_of_chunks_and_minibatches(tmp_path, policy, changes):
    reward = {"name": "tests.recipes.test_nothing_to_learn:SomePrompts"}
    config = grpo_config(tmp_path, policy, reward=reward, prompts_per_phase=6, max_steps=2, **changes)
    rows = rows_without_times(grpo.run(config))
    assert rows[-1]["no_verdict_frac"] == 0  # what does not apply is no failure


def test_a_process_whose_groups_were_all_left_out_does_what_the_others_do_with_no_row(config, model):
    whole = drawn(config, model)
    empty = whole.select_groups(torch.zeros(3, dtype=torch.bool))
    assert len(empty) == 0 and empty.num_micro(4) == 0 and list(empty.micro(4)) == []
    assert empty.counts() == SegmentCounts(*[0] * len(dataclasses.fields(SegmentCounts)))
    for minibatch in empty.minibatches(2, passes=1):
        assert len(minibatch) == 0
    assert batched_log_probs(model, empty.rollouts, 4).log_probs.shape == empty.rollouts.tokens.shape
    assert summed_log_ratio(model, empty.rollouts, 4).shape == (0,)
    assert len(keep_extremes(empty, 1)) == 0
    assert empty.rollouts.image_tokens().shape == (0, 0) == empty.rollouts.all_image_tokens().shape
    assert empty.rollouts.text_was_cut().shape == (0,)
    again = add_group_advantages(model, as_reward(LowCodes()), empty, config)
    assert again.advantages is not None and len(again.advantages.values) == 0
    loss = partial(grpo.grpo_loss, model, counts=whole.counts(), entropy_coefs=(0.1, 0.1), config=config)
    assert backward(loss, empty, 4) == ({}, {})
    assert not any(p.grad is not None for p in model.network.parameters())


@pytest.mark.parametrize("name", ["stage", "critical", "entropy_guided", "guidance_contrast"])
def test_every_kind_of_token_weights_passes_a_process_without_rows_and_one_without_verdicts(config, model, name):
    config = config.model_copy(update={"token_weights": name, "keep_extremes": 1, "advantage": "reinforce++_baseline"})
    silent = drawn(config, model, lambda rollouts: torch.full((len(rollouts),), math.nan))
    assert len(silent) == 12 and silent.num_micro(4) == 0
    assert (
        len(finish_advantages(model, silent.select_groups(torch.zeros(3, dtype=torch.bool)), config, World(config)))
        == 0
    )


def test_a_phase_of_which_nothing_is_left_here_is_counted_as_nothing(config, model):
    whole = drawn(config, model)
    empty = whole.select_groups(torch.zeros(3, dtype=torch.bool))
    world = World(config)
    world.sum = lambda sums: {k: v + (k in ("groups", "trained_rows")) for k, v in sums.items()}  # another's row
    row = phase_stats(empty, Verdicts.of(whole.rewards), config, world)
    assert row["advantage_std"] is None and row["reward_mean"] is not None and row["thought_tokens_mean"] == 0


def test_parts_of_a_reward_that_only_some_batches_have_are_missing_in_the_others():
    one = Verdicts.of(torch.tensor([1.0]), parts={"color": torch.tensor([2.0])}, part_applies={})
    other = Verdicts.of(
        torch.tensor([3.0]), torch.tensor([False]), {"count": torch.tensor([4.0])}, {"count": torch.tensor([True])},
        Counter(silent=1),
    )  # fmt: skip
    both = Verdicts.join([one, other])
    assert both.rewards.tolist() == [1.0, 3.0] and both.applies.tolist() == [True, False]
    assert both.parts["color"][0] == 2 and both.parts["color"][1].isnan()
    assert both.parts["count"][0].isnan() and both.parts["count"][1] == 4
    assert both.part_applies["count"].tolist() == [False, True] and both.notes["silent"] == 1


def test_a_step_of_fewer_pairs_than_processes_and_log_probs_of_no_row(config, model, tmp_path):
    judged = drawn(config, model)
    pairs = Pairs(torch.tensor([0]), torch.tensor([1]), torch.ones(1), 0, 0, 0)
    step = PairBatch.of_step(judged, pairs, 0, PreferenceConfig(pairs_per_step=1))
    mine, other = (step.share(rank, 2) for rank in (0, 1))
    assert len(list(mine.micro(4))) == mine.num_micro(4) == 1
    assert list(other.micro(4)) == [] and other.num_micro(4) == 0
    world = World(config)
    world.share = lambda count: range(count, count)  # the others have all rows
    before = with_cached_log_probs(
        lambda: model, judged, torch.tensor([0, 1]), 4, world, tmp_path / "before.safetensors", "rows"
    )
    assert before.old_log_probs is not None and not before.old_log_probs.any()


def test_questions_of_no_row_have_no_micro_batch():
    empty = LabelledQuestions(torch.zeros(2, 4, 4, 3), ["a", "b"], torch.ones(2), ["a", "b"]).select([])
    assert list(empty.micro(4)) == [] and empty.num_micro(4) == 0
