"""The rollouts to learn from: pairs for preference losses, rows for rejection."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from thinkdraw.objectives.advantages import as_groups

_ROUNDING = 1e-6  # tolerance of min_margin: 0.9 − 0.8 is 0.09999996 in float32


@dataclass(frozen=True)
class Pairs:
    """K pairs of rows of one batch, prompt-major, both rows of one group.

    better, worse: (K,) int64 row indices.
    margin: (K,) reward of better − reward of worse, above 0.
    num_flat_groups: groups with two verdicts or more and no pair, because their rewards are too close.
    num_dropped_groups: groups with fewer than two verdicts.
    num_no_verdict: rows whose reward was NaN.
    """

    better: Tensor
    worse: Tensor
    margin: Tensor
    num_flat_groups: int
    num_dropped_groups: int
    num_no_verdict: int


def pairs_from_rewards(
    rewards: Tensor,
    group_size: int,
    *,
    which: Literal["best_worst", "all"] = "best_worst",
    min_margin: float = 0.0,
) -> Pairs:
    """Pair rollouts of the same prompt whose rewards differ, by at least min_margin.

    rewards: (B,) prompt-major, NaN = no verdict. Such a row is in no pair.
    which: `best_worst` = one pair per group, the first row of the highest and of the lowest reward. `all` = every
        pair with different rewards, up to G(G − 1)/2 per group.
    Raises ValueError if group_size < 2, does not divide B, a reward is infinite, or min_margin is negative.
    """
    if which not in ("best_worst", "all"):
        raise ValueError(f"which={which!r}: choose 'best_worst' or 'all'.")
    if not min_margin >= 0:
        raise ValueError(f"min_margin={min_margin}: it is a difference of rewards, 0 or more.")
    groups_PG, verdict_PG, num_P1 = as_groups(rewards, group_size)
    if which == "best_worst":
        better_PK = _first_highest(groups_PG, verdict_PG)
        worse_PK = _first_highest(-groups_PG, verdict_PG)
        both_PK = num_P1 >= 2
    else:
        first, second = torch.triu_indices(group_size, group_size, offset=1, device=rewards.device)
        swapped_PK = groups_PG[:, second] > groups_PG[:, first]
        better_PK = torch.where(swapped_PK, second, first)
        worse_PK = torch.where(swapped_PK, first, second)
        both_PK = verdict_PG[:, first] & verdict_PG[:, second]
    margin_PK = groups_PG.gather(1, better_PK) - groups_PG.gather(1, worse_PK)
    accepted_PK = both_PK & (margin_PK > 0) & (margin_PK >= min_margin - _ROUNDING)
    offset_P1 = group_size * torch.arange(len(groups_PG), device=rewards.device)[:, None]
    dropped_P = num_P1.squeeze(1) < 2
    return Pairs(
        better=(better_PK + offset_P1)[accepted_PK],
        worse=(worse_PK + offset_P1)[accepted_PK],
        margin=margin_PK[accepted_PK],
        num_flat_groups=int((~accepted_PK.any(1) & ~dropped_P).sum()),
        num_dropped_groups=int(dropped_P.sum()),
        num_no_verdict=int((~verdict_PG).sum()),
    )


def accepted_rows(rewards: Tensor, group_size: int, *, threshold: float | None = None, best_of: bool = False) -> Tensor:
    """Select rows to fine-tune on, (K,) int64 in ascending order: rejection sampling.

    rewards: (B,) prompt-major, NaN = no verdict. Such a row is never accepted.
    threshold: accept rewards *above* it.
    best_of: accept only the best of each group, of equals the first. Without a threshold, the best of a group of
        failures is accepted too.
    Raises ValueError without threshold and best_of, if group_size does not divide B, or if a reward is infinite.
    """
    if threshold is None and not best_of:
        raise ValueError("without threshold and best_of, every row would be accepted. Choose at least one of them.")
    groups_PG, verdict_PG, _ = as_groups(rewards, group_size, at_least=1)
    accepted_PG = verdict_PG if threshold is None else verdict_PG & (groups_PG > threshold)
    if best_of:
        accepted_PG = accepted_PG & (
            torch.arange(group_size, device=rewards.device) == _first_highest(groups_PG, verdict_PG)
        )
    return accepted_PG.reshape(-1).nonzero().flatten()


def _first_highest(values_PG: Tensor, verdict_PG: Tensor) -> Tensor:
    """Find the column (P, 1) of the highest value with a verdict, of equals the first.

    argmax does not promise the first of equals.
    """
    values_PG = values_PG.masked_fill(~verdict_PG, -torch.inf)
    columns = torch.arange(values_PG.shape[1], device=values_PG.device).expand_as(values_PG)
    highest_PG = values_PG == values_PG.amax(1, keepdim=True)
    return columns.masked_fill(~highest_PG, values_PG.shape[1]).amin(1, keepdim=True)
