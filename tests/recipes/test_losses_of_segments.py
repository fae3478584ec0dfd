"""GRPO's and DPO's own losses, micro-batches and all, on rows of seven segments and of ten scales."""

import dataclasses
from functools import partial

import pytest
import torch
from tests.rollouts.segmented import StubPolicy, interleaved, of_ten_scales

from thinkdraw.objectives import group_normalized
from thinkdraw.recipes.grpo import grpo_loss
from thinkdraw.recipes.phase.config import GrpoConfig
from thinkdraw.recipes.preference import PairBatch, PreferenceConfig, pair_loss
from thinkdraw.training.batch import Batch
from thinkdraw.training.run import backward
from thinkdraw.types import Verdicts

BOTH = pytest.mark.parametrize("made", [interleaved, of_ten_scales])
REWARDS = torch.tensor([0.0, 1.0, 0.2, 0.7])


def gradient(policy, loss, batch, rows) -> torch.Tensor:
    policy.network.zero_grad()
    backward(loss, batch, rows)
    return policy.network.weight.grad.clone()


@BOTH
def test_grpo_learns_the_same_from_any_micro_batches(made):
    policy, config = StubPolicy(), GrpoConfig()
    batch = Batch(made(), Verdicts.of(REWARDS), group_normalized(REWARDS, 2), groups=torch.tensor([0, 0, 1, 1]))
    loss = partial(grpo_loss, policy, counts=batch.counts(), entropy_coefs=(0.01, -0.02), config=config)
    whole = gradient(policy, loss, batch, 4)
    assert float(whole.norm()) > 0
    for rows in (1, 3):
        torch.testing.assert_close(gradient(policy, loss, batch, rows), whole, atol=1e-6, rtol=1e-4)
    first, second = batch.minibatches(2, passes=1)
    parts = gradient(policy, loss, first, 4) + gradient(policy, loss, second, 4)
    torch.testing.assert_close(parts, whole, atol=1e-6, rtol=1e-4)


@BOTH
@pytest.mark.parametrize("objective", ["dpo", "rebel"])
def test_pairs_teach_the_same_from_any_micro_batches(made, objective):
    policy, config = StubPolicy(), PreferenceConfig.model_validate({"objective": objective})
    judged = Batch(made(), Verdicts.of(REWARDS))
    judged = dataclasses.replace(judged, old_log_probs=judged.rollouts.log_probs)
    pairs = PairBatch(judged, torch.tensor([1, 3]), torch.tensor([0, 2]))
    loss = partial(pair_loss, policy, num_pairs=2, config=config)
    whole = gradient(policy, loss, pairs, 4)
    assert float(whole.norm()) > 0
    torch.testing.assert_close(gradient(policy, loss, pairs, 2), whole, atol=1e-6, rtol=1e-4)
