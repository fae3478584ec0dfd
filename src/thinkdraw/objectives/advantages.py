"""From rewards to advantages: credit relative to the group or the batch."""

import dataclasses
import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Advantages:
    """Advantages of B = P·G rollouts, and what was left out.

    values: (B,), 0 where valid is False.
    valid: (B,) bool; False = the row leaves the loss (set its mask to False).
    zero_variance: (P,) bool, groups whose valid rewards are all equal. They stay valid, with advantage 0.
    dropped: (P,) bool, groups with too few verdicts, of which no row is valid. Too few means fewer than two; for
        `reinforce_plus_plus`, none.
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
    """Compute (reward − mean of the group) / (std of the group + eps).

    rewards: (B,) prompt-major, NaN = no verdict. Such a row does not count in its group's mean and std.
    scale_by_std: False gives reward − mean (Dr. GRPO, arXiv 2503.20783). The std divides by n − 1.
    Raises ValueError if group_size < 2, does not divide B, or a reward is infinite.
    Shao et al. 2024 (arXiv 2402.03300).
    """
    groups_PG, verdict_PG, num_P1 = as_groups(rewards, group_size)
    mean_P1 = groups_PG.sum(1, keepdim=True) / num_P1.clamp(min=1)
    centred_PG = (groups_PG - mean_P1).masked_fill(~verdict_PG, 0.0)
    if scale_by_std:
        std_P1 = (centred_PG.square().sum(1, keepdim=True) / (num_P1 - 1).clamp(min=1)).sqrt()
        centred_PG = centred_PG / (std_P1 + eps)
    return _advantages(centred_PG, groups_PG, verdict_PG, num_P1)


def leave_one_out(rewards: Tensor, group_size: int) -> Advantages:
    """Compute reward − mean of the *other* rewards of the group.

    That is n/(n − 1) · (reward − mean).
    rewards: (B,) prompt-major, NaN = no verdict. Such a row is no baseline for others.
    Raises ValueError if group_size < 2, does not divide B, or a reward is infinite.
    RLOO, Ahmadian et al. 2024 (arXiv 2402.14740).
    """
    groups_PG, verdict_PG, num_P1 = as_groups(rewards, group_size)
    others_PG = (groups_PG.sum(1, keepdim=True) - groups_PG) / (num_P1 - 1).clamp(min=1)
    return _advantages(groups_PG - others_PG, groups_PG, verdict_PG, num_P1)


@dataclass(frozen=True)
class BatchMoments:
    """Count, sum and sum of squares of a batch's values.

    Add the moments of several parts or ranks with `+`. The fields are plain floats: after `dataclasses.astuple` and
    an all-reduce, `BatchMoments(*tensor.tolist())` rebuilds them.
    """

    count: float
    total: float
    total_squares: float

    def __add__(self, moments: "BatchMoments") -> "BatchMoments":
        return BatchMoments(*(a + b for a, b in zip(dataclasses.astuple(self), dataclasses.astuple(moments))))

    def stats(self, eps: float = 1e-4) -> tuple[float, float]:
        """Return (mean, std + eps), the `batch_stats` to normalise with.

        The std divides by n − 1.
        """
        mean = self.total / max(self.count, 1.0)
        variance = (self.total_squares - self.count * mean**2) / max(self.count - 1.0, 1.0)
        return mean, math.sqrt(max(variance, 0.0)) + eps


def batch_moments(advantages: Advantages) -> BatchMoments:
    """Sum up the values of the valid rows."""
    values = advantages.values[advantages.valid].double()
    return BatchMoments(float(len(values)), float(values.sum()), float(values.square().sum()))


def batch_normalized(advantages: Advantages, batch_stats: tuple[float, float] | None = None) -> Advantages:
    """Compute (value − mean) / std over the valid rows of the whole batch.

    Groups marked zero_variance keep advantage 0.
    batch_stats: (mean, std) to use. None = `batch_moments(advantages).stats()`. Where a batch is split into parts
        or over ranks, add their BatchMoments and pass the stats of the sum: then the split changes nothing.
    Raises ValueError if std is not above 0.
    """
    mean, std = batch_moments(advantages).stats() if batch_stats is None else batch_stats
    if not std > 0:
        raise ValueError(f"batch_stats={batch_stats}: it is (mean, std) with std above 0. Use BatchMoments.stats().")
    values = ((advantages.values.double() - mean) / std).to(advantages.values.dtype)
    group_size = len(values) // max(len(advantages.zero_variance), 1)
    flat = advantages.zero_variance.repeat_interleave(group_size)
    return dataclasses.replace(advantages, values=values.masked_fill(~advantages.valid | flat, 0.0))


def reinforce_plus_plus(
    rewards: Tensor, group_size: int = 1, *, baseline: bool = False, batch_stats: tuple[float, float] | None = None
) -> Advantages:
    """Compute (reward − mean) / std over the *batch*: REINFORCE++.

    The baseline is global, so one rollout per prompt is enough.
    rewards: (B,) prompt-major, NaN = no verdict. Such a row does not count in mean and std.
    baseline: subtract the group's mean first, then normalise over the batch (needs group_size ≥ 2). Without it a
        group of equal rewards has an advantage too, so zero_variance is False throughout.
    batch_stats: as for `batch_normalized`. (0.0, 1.0) gives the values whose BatchMoments the ranks add up.
    Raises ValueError if group_size is too small or does not divide B, or a reward is infinite.
    Hu et al. 2025 (arXiv 2501.03262). The paper adds KL as k1 inside the reward without baseline, and as k2 in the
    loss with it.
    """
    if baseline:
        return batch_normalized(group_normalized(rewards, group_size, scale_by_std=False), batch_stats)
    groups_PG, verdict_PG, num_P1 = as_groups(rewards, group_size, at_least=1)
    dropped_P = num_P1.squeeze(1) == 0
    raw = Advantages(
        values=groups_PG.reshape(-1),
        valid=verdict_PG.reshape(-1),
        zero_variance=torch.zeros_like(dropped_P),
        dropped=dropped_P,
        num_no_verdict=int((~verdict_PG).sum()),
        num_zero_variance_groups=0,
        num_dropped_groups=int(dropped_P.sum()),
    )
    return batch_normalized(raw, batch_stats)


def as_groups(rewards: Tensor, group_size: int, at_least: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    """Split rewards into groups (P, G), a verdict mask, and verdicts per group (P, 1).

    Rewards without a verdict become 0. Raises ValueError as the callers document.
    """
    if group_size < at_least:
        raise ValueError(
            f"group_size={group_size}: rollouts of one prompt are compared with each other, which needs at least "
            f"{at_least}. Raise group_size, or choose reinforce++, whose baseline is the batch."
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
    """Assemble advantages, with 0 for invalid rows and for groups of equal rewards."""
    dropped_P = num_P1.squeeze(1) < 2
    highest_P = groups_PG.masked_fill(~verdict_PG, -torch.inf).amax(1)
    lowest_P = groups_PG.masked_fill(~verdict_PG, torch.inf).amin(1)
    # Compared as max == min: rounding often makes the std of equal floats 1e-9, which eps does not hide.
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
