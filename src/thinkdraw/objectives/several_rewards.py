"""From several rewards to one advantage."""

import dataclasses
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from thinkdraw.objectives.advantages import Advantages, batch_normalized, group_normalized


def combine(
    rewards: Mapping[str, Tensor],
    group_size: int,
    weights: Mapping[str, float] | None = None,
    *,
    how: Literal["gdpo", "weighted_sum"] = "gdpo",
    ranges: Mapping[str, tuple[float, float]] | None = None,
    applies: Mapping[str, Tensor] | None = None,
    batch_stats: tuple[float, float] | None = None,
) -> Advantages:
    """Combine named rewards into advantages.

    rewards: (B,) each, prompt-major. NaN where the reward applies = no verdict: the row leaves every mean, every
        std and the loss.
    applies: (B,) bool per reward; None or a missing name = everywhere. Where False the reward contributes nothing,
        whatever its value, and this is no failure. A row to which no reward applies leaves the loss, uncounted.
    weights: None = 1 each; names must match. A reward of weight 0 is ignored.
    how: `gdpo`: (reward − group mean) / (group std + eps) for each reward, weighted sum, then normalised over the
        batch, so that no reward dominates by its scale. `weighted_sum`: each reward mapped from its range to 0..1,
        weighted sum, then `group_normalized`; where a reward does not apply, its group mean stands in.
    ranges: (lowest, highest) per reward. weighted_sum requires all of them; values are checked against those that
        exist.
    batch_stats: (mean, std) of the last step of `gdpo`, see `batch_normalized`; (0.0, 1.0) leaves that step out.
    Raises ValueError for names that do not match, a missing range, or a value outside its range, naming the reward.
    GDPO: Liu et al. 2026 (arXiv 2601.05242).
    """
    if how not in ("gdpo", "weighted_sum"):
        raise ValueError(f"how={how!r}: choose 'gdpo' or 'weighted_sum'.")
    if how == "weighted_sum" and batch_stats is not None:
        raise ValueError("batch_stats is for how='gdpo'; weighted_sum normalises within groups. Leave it out.")
    weights = _checked_weights(rewards, weights)
    if len({tensor.shape for tensor in rewards.values()}) > 1:
        raise ValueError(f"shapes differ: { ({n: tuple(t.shape) for n, t in rewards.items()}) }. Each reward is (B,).")
    used = [name for name in rewards if weights[name] != 0]
    for option, names in {"ranges": ranges or {}, "applies": applies or {}}.items():
        if unknown := names.keys() - rewards.keys():
            raise ValueError(f"{option} names {sorted(unknown)}, the rewards are {sorted(rewards)}.")
    applied = {name: _applied(name, rewards[name], applies) for name in used}
    values = {name: _scaled(name, rewards[name], applied[name], (ranges or {}).get(name), how) for name in used}

    any_applies = torch.stack(list(applied.values())).any(0)
    no_verdict = torch.stack([applied[name] & values[name].isnan() for name in used]).any(0)
    valid = any_applies & ~no_verdict
    total = torch.zeros_like(values[used[0]])
    for name in used:
        # `group_normalized` gives exact zeros to a group of equal values, and to one where the reward applies to
        # fewer than two rows. A small remainder would be blown up by the normalisation over the batch.
        normalized = group_normalized(
            values[name].masked_fill(~(valid & applied[name]), torch.nan), group_size, how == "gdpo"
        )
        total = total + weights[name] * normalized.values
    result = group_normalized(total.masked_fill(~valid, torch.nan), group_size, scale_by_std=how == "weighted_sum")
    result = dataclasses.replace(result, num_no_verdict=int(no_verdict.sum()))
    return batch_normalized(result, batch_stats) if how == "gdpo" else result


def _checked_weights(rewards: Mapping[str, Tensor], weights: Mapping[str, float] | None) -> Mapping[str, float]:
    """Return a weight for each reward. Raises ValueError."""
    weights = dict.fromkeys(rewards, 1.0) if weights is None else weights
    if weights.keys() != rewards.keys() or not any(weights.values()):
        raise ValueError(
            f"weights are {dict(weights)} and the rewards {sorted(rewards)}: give each reward a weight, at least one of "
            "them not 0."
        )
    return weights


def _applied(name: str, rewards: Tensor, applies: Mapping[str, Tensor] | None) -> Tensor:
    """Return the mask (B,) of the rows that a reward applies to. Raises ValueError."""
    mask = (applies or {}).get(name)
    if mask is None:
        return torch.ones_like(rewards, dtype=torch.bool)
    if mask.dtype != torch.bool or mask.shape != rewards.shape:
        raise ValueError(f"applies[{name!r}] is {mask.dtype} {tuple(mask.shape)}: pass bool {tuple(rewards.shape)}.")
    return mask


def _scaled(name: str, rewards: Tensor, applied: Tensor, limits: tuple[float, float] | None, how: str) -> Tensor:
    """Set a reward to NaN where it does not apply, and scale it for weighted_sum.

    Raises ValueError for a missing range, or a value outside it.
    """
    values = rewards.detach().to(torch.promote_types(rewards.dtype, torch.float32)).masked_fill(~applied, torch.nan)
    if limits is None:
        if how == "weighted_sum":
            raise ValueError(
                f"reward {name!r} has no range: weighted_sum adds rewards on a scale of 0..1. Pass its range."
            )
        return values
    low, high = limits
    if not low < high:
        raise ValueError(f"range of reward {name!r} is {limits}: it is (lowest, highest).")
    slack = 1e-5 * (high - low)  # a probability in float32 may be 1.0000001
    outside = (values < low - slack) | (values > high + slack)
    if outside.any():
        raise ValueError(
            f"reward {name!r} has the value {values[outside][0].item():g} outside its range {limits}. Correct the range, "
            "or return NaN where there is no verdict."
        )
    return ((values - low) / (high - low)).clamp(0, 1) if how == "weighted_sum" else values
