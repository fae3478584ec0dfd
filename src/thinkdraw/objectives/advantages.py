"""Rewards to advantages: the credit of a rollout relative to its group."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Advantages:
    """Advantages of B = P·G rollouts and what was left out on the way.

    values: (B,), 0 where valid is False.  valid: (B,) bool, False = leaves the loss (set its mask to False).
    zero_variance: (P,) bool, groups whose valid rewards are all equal: they stay valid, with advantage 0.
    dropped: (P,) bool, groups with fewer than two verdicts: none of their rows is valid.
    num_no_verdict: rows whose reward was NaN.
    """

    values: Tensor
    valid: Tensor
    zero_variance: Tensor
    dropped: Tensor
    num_no_verdict: int
    num_zero_variance_groups: int
    num_dropped_groups: int


def group_normalized(rewards: Tensor, group_size: int, scale_by_std: bool = True, eps: float = 1e-4) -> Advantages:
    """(reward − mean of the group) / (std of the group + eps).

    rewards: (B,) prompt-major, NaN = no verdict: such a row leaves its group's mean and std.
    scale_by_std: False gives reward − mean (Dr. GRPO, arXiv 2503.20783).  std divides by n − 1.
    Raises ValueError if group_size < 2, does not divide B, or a reward is infinite.
    Shao et al. 2024 (arXiv 2402.03300).
    """
    groups_PG, verdict_PG, num_P1 = _groups(rewards, group_size)
    mean_P1 = groups_PG.sum(1, keepdim=True) / num_P1.clamp(min=1)
    centred_PG = (groups_PG - mean_P1).masked_fill(~verdict_PG, 0.0)
    if scale_by_std:
        std_P1 = (centred_PG.square().sum(1, keepdim=True) / (num_P1 - 1).clamp(min=1)).sqrt()
        centred_PG = centred_PG / (std_P1 + eps)
    return _advantages(centred_PG, groups_PG, verdict_PG, num_P1)


def leave_one_out(rewards: Tensor, group_size: int) -> Advantages:
    """reward − mean of the *other* rewards of the group, which is n/(n − 1) · (reward − mean).

    rewards: (B,) prompt-major, NaN = no verdict: such a row is nobody's baseline.
    Raises ValueError if group_size < 2, does not divide B, or a reward is infinite.
    RLOO, Ahmadian et al. 2024 (arXiv 2402.14740).
    """
    groups_PG, verdict_PG, num_P1 = _groups(rewards, group_size)
    others_PG = (groups_PG.sum(1, keepdim=True) - groups_PG) / (num_P1 - 1).clamp(min=1)
    return _advantages(groups_PG - others_PG, groups_PG, verdict_PG, num_P1)


def _groups(rewards: Tensor, group_size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Rewards as (P, G) with 0 for no verdict, the verdict mask (P, G), and the verdicts per group (P, 1)."""
    if group_size < 2:
        raise ValueError(
            f"group_size={group_size}: GRPO compares rollouts of one prompt and needs at least 2. "
            "Raise group_size, or choose objective.name=reinforce."
        )
    if rewards.ndim != 1 or rewards.shape[0] % group_size:
        raise ValueError(
            f"rewards are {tuple(rewards.shape)} with group_size={group_size}: they must be (B,), prompt-major, "
            "with B a multiple of group_size. Keep whole groups together."
        )
    if rewards.isinf().any():
        raise ValueError(
            f"rewards hold {int(rewards.isinf().sum())} infinite values: a reward is finite, or NaN for no verdict. "
            "Return NaN from the reward that failed."
        )
    rewards = rewards.detach().to(torch.promote_types(rewards.dtype, torch.float32))
    groups_PG = rewards.reshape(-1, group_size)
    verdict_PG = ~groups_PG.isnan()
    return groups_PG.masked_fill(~verdict_PG, 0.0), verdict_PG, verdict_PG.sum(1, keepdim=True)


def _advantages(values_PG: Tensor, groups_PG: Tensor, verdict_PG: Tensor, num_P1: Tensor) -> Advantages:
    dropped_P = num_P1.squeeze(1) < 2
    highest_P = groups_PG.masked_fill(~verdict_PG, -torch.inf).amax(1)
    lowest_P = groups_PG.masked_fill(~verdict_PG, torch.inf).amin(1)
    # Compared as max == min: the computed std of equal floats is often 1e-9, which eps does not hide.
    zero_variance_P = (highest_P == lowest_P) & ~dropped_P
    valid_PG = verdict_PG & ~dropped_P[:, None]
    return Advantages(
        values=values_PG.masked_fill(~valid_PG | zero_variance_P[:, None], 0.0).reshape(-1),
        valid=valid_PG.reshape(-1),
        zero_variance=zero_variance_P,
        dropped=dropped_P,
        num_no_verdict=int((~verdict_PG).sum()),
        num_zero_variance_groups=int(zero_variance_P.sum()),
        num_dropped_groups=int(dropped_P.sum()),
    )
