"""What every policy family has to satisfy, whichever model is behind it; and the prompts that its tests share."""

import pytest
import torch

from thinkdraw.policies.check import fp32_limit
from thinkdraw.types import Policy, Prompt, Rollouts, Sampling

# What the family-independent tests run on: "checkpoint" stands for a random Janus made by conftest.py.
FAMILIES = {"janus": "checkpoint", "grid": "examples.my_policy.policy:GridPolicy"}

# Lengths differ much, so that every batch is ragged.
PROMPTS = [
    Prompt("a red circle"),
    Prompt("a photo of two blue squares left of a very small green triangle on a white background"),
    Prompt("star"),
]
SEEDS = torch.tensor([11, -(2**40), 13, 2**62, 15, 16])
TOLERANCE = 1e-4  # nats, fp32


def tolerance(settings: Sampling) -> float:
    """TOLERANCE, and more where guidance and temperature make more of rounding, see `fp32_limit`."""
    return fp32_limit(settings)


def skip_unless_it_draws(policy: Policy, thought: str) -> None:
    if thought not in policy.thought_formats:
        pytest.skip(f"{type(policy).__name__} draws {', '.join(policy.thought_formats)}, not {thought}")


def some_codes(policy: Policy, rows: int) -> torch.Tensor:
    """(rows, N) image tokens, different in every row."""
    spec = policy.picture
    return torch.arange(rows * spec.num_tokens).reshape(rows, -1) % spec.num_codes


def difference(policy: Policy, rollouts: Rollouts) -> float:
    """Largest |sampler's log-prob − scorer's| over the tokens in the mask."""
    with torch.no_grad():
        scored = policy.log_probs(rollouts)
    assert torch.isfinite(scored.log_probs).all() and torch.isfinite(scored.entropy).all()
    assert (scored.log_probs[~rollouts.mask] == 0).all() and (rollouts.log_probs[~rollouts.mask] == 0).all()
    assert (rollouts.log_probs[rollouts.mask] < 0).any()
    return float((scored.log_probs - rollouts.log_probs).abs().max())


def assert_same_rollouts(one: Rollouts, other: Rollouts) -> None:
    """Equal tokens, masks and segments row by row, whatever the padding; log-probs within the tolerance."""
    assert len(one) == len(other)
    for r in range(len(one)):
        length = int((one.segment[r] >= 0).sum())
        assert length == int((other.segment[r] >= 0).sum())
        for name in ("tokens", "mask", "segment", "is_image"):
            assert torch.equal(getattr(one, name)[r, :length], getattr(other, name)[r, :length]), (r, name)
        assert (one.log_probs[r, :length] - other.log_probs[r, :length]).abs().max() <= tolerance(one.sampling)


def sampling(thought: str = "inline", **settings) -> Sampling:
    return Sampling(thought=thought, **{"max_thought_tokens": 10, **settings})
