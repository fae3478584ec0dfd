"""One container from sampling to loss: its parts are whole, disjoint and in order."""

import torch
from tests.benchmarks.stub import rollouts as of_pictures

from thinkdraw.objectives import group_normalized
from thinkdraw.training.batch import Batch
from thinkdraw.types import Prompt, Verdicts


def batch_of(rewards: list[float], group_size: int = 2) -> Batch:
    prompts = [Prompt(f"prompt {i // group_size}") for i in range(len(rewards))]
    rollouts = of_pictures(prompts, torch.zeros(len(rewards), 4, 4, 3, dtype=torch.uint8), [""] * len(rewards))
    rollouts = rollouts.select(torch.arange(len(rewards)), group_size)
    values = torch.tensor(rewards)
    groups = torch.arange(len(rewards) // group_size).repeat_interleave(group_size)
    verdicts = Verdicts.of(values, parts={"half": values / 2})
    return Batch(rollouts, verdicts, group_normalized(values, group_size), groups=groups)


def test_micro_batches_hold_each_row_that_is_in_the_loss_once():
    batch = batch_of(
        [0.0, 1.0, torch.nan, 1.0, 3.0, 5.0]
    )  # the second group has one verdict: neither row is learned from
    parts = list(batch.micro(3))
    assert [len(part) for part in parts] == [3, 1] and batch.num_micro(3) == 2
    assert sorted(float(r) for part in parts for r in part.rewards) == [0.0, 1.0, 3.0, 5.0]
    assert all(torch.equal(part.verdicts.parts["half"], part.rewards / 2) for part in parts)


def test_a_batch_without_a_verdict_has_no_micro_batch():
    batch = batch_of([torch.nan] * 4)
    assert list(batch.micro(2)) == [] and batch.num_micro(2) == 0
    assert batch.counts().sequences == 0


def test_minibatches_take_whole_groups_by_their_number_in_each_pass():
    batch = batch_of([0.0, 1.0, 2.0, 2.0, 4.0, 5.0])
    first, second, again, _ = batch.minibatches(2, passes=2)
    assert first.groups.tolist() == [0, 0, 2, 2] and second.groups.tolist() == [1, 1] == [1] * len(second)
    assert torch.equal(first.advantages.values, batch.advantages.values[[0, 1, 4, 5]])
    assert second.advantages.num_zero_variance_groups == 1 and first.advantages.num_zero_variance_groups == 0
    assert again.rewards.tolist() == first.rewards.tolist()
    assert next(iter(batch.minibatches(1, passes=1))) is batch


def test_groups_that_are_left_out_and_joined_again_are_those_that_were_there():
    batch = batch_of([0.0, 1.0, 2.0, 2.0, 4.0, 5.0])
    kept, rest = (
        batch.select_groups(torch.tensor([True, False, True])),
        batch.select_groups(torch.tensor([False, True, False])),
    )
    both = Batch.join([kept, rest])
    assert both.groups.tolist() == [0, 0, 2, 2, 1, 1] and both.rewards.tolist() == [0.0, 1.0, 4.0, 5.0, 2.0, 2.0]
    assert both.advantages.zero_variance.tolist() == [False, False, True]
    empty = batch.select_groups(torch.zeros(3, dtype=torch.bool))
    assert len(empty) == 0 and len(Batch.join([empty, kept])) == 4


def test_old_log_probs_and_token_weights_follow_their_rows():
    batch = batch_of([0.0, 1.0, 2.0, 3.0])
    steps = torch.arange(4.0)[:, None].expand(batch.rollouts.tokens.shape).clone()
    part = Batch(batch.rollouts, batch.verdicts, batch.advantages, old_log_probs=steps).select(torch.tensor([3, 1]))
    assert part.old_log_probs[:, 0].tolist() == [3.0, 1.0] and part.rewards.tolist() == [3.0, 1.0]
