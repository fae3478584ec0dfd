"""Columns of metrics.jsonl about a phase's pictures, without asking a judge.

A judge that is exploited says that all is well. Pictures that turn dark, lose their edges or colours, or become copies of
each other are seen here, and `alarms.py` says when a change is large.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from thinkdraw.training.batch import Batch, split_rows
from thinkdraw.training.world import World

DARK = 0.2  # luma below which a pixel is dark
EDGE = 0.1  # difference of luma between neighbours above which a pixel lies on an edge
COLOUR_BINS = 4  # per channel, so that there are 64 colours and at most 6 bits
GRID = 8  # patches per side in which the pictures of a group are compared
ROWS_AT_ONCE = 32  # a batch of photographs as floats would take more memory than the tokens it was drawn from
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
PIXEL_MEASURES = ("dark_frac", "edge_density", "colour_entropy", "brightness", "saturation")


def picture_stats(batch: Batch, world: World) -> dict[str, float | None]:
    """Average `pixel_measures`, diversity and spread of rewards over all processes.

    Of the groups that are learned from. None where nothing can be measured, as without pictures.
    """
    pictures, rewards = batch.rollouts.pictures, batch.rewards
    columns = {f"pictures/{name}": torch.zeros(0) for name in (*PIXEL_MEASURES, "diversity")}
    if pictures is not None and len(pictures):
        columns = {f"pictures/{name}": values for name, values in pixel_measures(pictures).items()}
        columns["pictures/diversity"] = group_diversity(pictures, batch.group_size)
    columns["reward_group_std"] = group_std(rewards, batch.group_size)
    sums: dict[str, float] = {}
    for name, values in columns.items():
        known = values[~values.isnan()].double()
        sums |= {f"{name}/sum": float(known.sum()), f"{name}/count": float(len(known))}
    totals = world.sum(sums)
    return {name: totals[f"{name}/sum"] / n if (n := totals[f"{name}/count"]) else None for name in columns}


def pixel_measures(pictures: Tensor) -> dict[str, Tensor]:
    """Measure each picture by itself, (B,) float32 per name of PIXEL_MEASURES.

    dark_frac: share of pixels whose luma is below DARK. edge_density: share of pixels that differ from the one to the right
    or below by more than EDGE. colour_entropy: bits of the histogram of 64 colours, 0..6. brightness: mean luma, 0..1.
    saturation: mean of HSV's, 0..1.
    pictures: (B, H, W, 3) uint8.
    """
    parts: dict[str, list[Tensor]] = {name: [] for name in PIXEL_MEASURES}
    for some in _as_floats(pictures):
        luma = some @ some.new_tensor(LUMA)
        step = torch.zeros_like(luma)
        step[:, :, :-1] = luma.diff(dim=2).abs()
        step[:, :-1] = step[:, :-1].maximum(luma.diff(dim=1).abs())
        highest, lowest = some.amax(-1), some.amin(-1)
        parts["dark_frac"].append((luma < DARK).float().mean((1, 2)))
        parts["edge_density"].append((step > EDGE).float().mean((1, 2)))
        parts["colour_entropy"].append(_colour_entropy(some))
        parts["brightness"].append(luma.mean((1, 2)))
        parts["saturation"].append(((highest - lowest) / highest.clamp_min(1e-6)).mean((1, 2)))
    return {name: torch.cat(values) for name, values in parts.items()}


def group_diversity(pictures: Tensor, group_size: int) -> Tensor:
    """Measure how much the pictures of each group differ, (P,) in 0..1.

    The mean absolute difference between the colours of their patches, over pairs: 0 for copies.
    pictures: (P · group_size, H, W, 3) uint8, groups together.
    """
    patches = [adaptive_avg_pool2d(some.movedim(-1, 1), GRID).flatten(1) for some in _as_floats(pictures)]
    groups = torch.cat(patches).unflatten(0, (-1, group_size))
    pairs = group_size * (group_size - 1)
    return torch.cdist(groups, groups, p=1.0).sum((1, 2)) / max(pairs, 1) / groups.shape[-1]


def group_std(rewards: Tensor, group_size: int) -> Tensor:
    """Compute the standard deviation of each group's known rewards, (P,).

    NaN with fewer than two of them.
    """
    groups = rewards.double().unflatten(0, (-1, group_size))
    count = (~groups.isnan()).sum(1)
    squares = (groups - groups.nanmean(1, keepdim=True)).square().nansum(1)
    return torch.where(count > 1, (squares / (count - 1).clamp_min(1)).sqrt(), torch.nan)


def _colour_entropy(pictures: Tensor) -> Tensor:
    bins = (pictures * COLOUR_BINS).long().clamp_max(COLOUR_BINS - 1)
    colours = (bins @ bins.new_tensor([COLOUR_BINS**2, COLOUR_BINS, 1])).flatten(1)
    shares = torch.zeros(len(pictures), COLOUR_BINS**3, device=pictures.device)
    shares.scatter_add_(1, colours, torch.ones_like(colours, dtype=torch.float32))
    shares /= colours.shape[1]
    return -torch.special.xlogy(shares, shares).sum(1) / torch.log(shares.new_tensor(2.0))


def _as_floats(pictures: Tensor) -> Iterator[Tensor]:
    """Yield a few pictures at a time, as floats in 0..1."""
    for rows in split_rows(torch.arange(len(pictures)), ROWS_AT_ONCE):
        yield pictures[rows[0] : rows[-1] + 1].float() / 255
