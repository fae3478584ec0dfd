"""Clipped policy-gradient losses: GRPO and its relatives.

Text and image tokens have separate means.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from thinkdraw.objectives.counts import SegmentCounts, check_token_axes, resolve_counts

Denominator = Literal["sequence", "token", "all", "budget"]


@dataclass(frozen=True)
class PolicyLoss:
    """A policy loss and the scalars to log with it, of this batch alone.

    All but loss are detached, and NaN where nothing was trained.
    text_clip_frac, image_clip_frac: share of that modality's trained tokens whose gradient the clip removes. For
        `cispo` it is the share whose weight is capped.
    ratio_*: of the token ratios π/π_old over all trained tokens, whatever the variant.
    ratio_max_deviation: max |ratio − 1|. It is 0 to float tolerance at the first update, or sampler and trainer
        disagree.
    """

    loss: Tensor
    text_clip_frac: Tensor
    image_clip_frac: Tensor
    ratio_mean: Tensor
    ratio_min: Tensor
    ratio_max: Tensor
    ratio_max_deviation: Tensor


def clipped_loss(
    log_probs: Tensor,
    old_log_probs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    is_image: Tensor,
    *,
    variant: str = "grpo",
    clip_low: float | None = None,
    clip_high: float | None = None,
    cispo_max: float | None = None,
    text_weight: float = 1.0,
    image_weight: float = 1.0,
    counts: SegmentCounts | None = None,
    denominator: Denominator | None = None,
    text_budget: float | None = None,
    image_budget: float | None = None,
) -> PolicyLoss:
    """Compute the clipped loss of text and image tokens, weighted and added.

    Each is a mean of −min(ρA, clip(ρ, 1 − low, 1 + high)·A), with ρ = π/π_old.
    log_probs, old_log_probs: (B, T) nats; old in the distribution the tokens were sampled from, without gradient.
    advantages: (B,), or (B, T) where token weights were multiplied in (not for gspo).
    mask, is_image: (B, T) bool, mask True = trained. Rows without a verdict have mask False.
    variant: `grpo`, `dapo` (alias `bnpo`), `dr_grpo` (pass advantages without std): the token ratio, clipped.
    `gspo`: one ratio per row and modality, exp(mean of log_probs − old_log_probs).
    `cispo`: −sg(min(ρ, cispo_max))·A·log_probs; clip_low and clip_high are unused.
    clip_low, clip_high: None = the variant's own: 3e-4 and 4e-4 for gspo, else 0.2 (DAPO raises clip_high to 0.28).
    denominator: None = the variant's own. `sequence` (grpo, gspo): mean over a row's tokens of the modality, then
        over the rows that have any. `token` (dapo, cispo): all trained tokens of the modality. `all`: all trained tokens of both, so that
        576 image tokens outvote a short thought, as in the code of ReasonGen-R1 and T2I-R1. `budget` (dr_grpo):
        sequences × text_budget or image_budget, the longest allowed segment in tokens.
    counts: global counts when accumulating; losses then *add up* over micro-batches and ranks.
    Raises ValueError for an unknown variant, a missing budget, gspo not by `sequence`, or a mask all False without
    counts.
    GRPO arXiv 2402.03300 · DAPO 2503.14476 · Dr. GRPO 2503.20783 · GSPO 2507.18071 · CISPO 2506.13585.
    """
    if variant not in VARIANTS:
        raise ValueError(f"variant={variant!r}: choose one of {', '.join(VARIANTS)}.")
    choice = VARIANTS[variant]
    denominator = denominator or choice.denominator
    if choice.surrogate is _segment_ratio_surrogate and (denominator != "sequence" or advantages.ndim != 1):
        raise ValueError(
            f"gspo with denominator={denominator!r} and advantages {tuple(advantages.shape)}: it has one ratio and one "
            "advantage per segment, so only denominator='sequence' and (B,) fit. Choose variant='dapo' for token sums."
        )
    check_token_axes(mask, is_image, log_probs=log_probs, old_log_probs=old_log_probs)
    if advantages.shape not in (mask.shape, mask.shape[:1]):
        raise ValueError(
            f"advantages are {tuple(advantages.shape)} and mask is {tuple(mask.shape)}: pass (B,) or (B, T) of the "
            "same rollouts."
        )
    counts = resolve_counts(mask, is_image, counts)
    advantages_BT = (advantages[:, None] if advantages.ndim == 1 else advantages).detach().expand(mask.shape)
    # Filled before exp: a forced or padded position may hold -inf. Masked only afterwards, inf · 0 would put NaN into
    # the gradient.
    trained_lp = log_probs.masked_fill(~mask, 0.0)
    log_ratio = trained_lp - old_log_probs.detach().masked_fill(~mask, 0.0)
    bounds = _Bounds(
        low=1.0 - (choice.clip_low if clip_low is None else clip_low),
        high=1.0 + (choice.clip_high if clip_high is None else clip_high),
        cispo_max=5.0 if cispo_max is None else cispo_max,
    )

    def modality(segment: Tensor, num_tokens: float, num_sequences: float, budget: float | None) -> tuple[Tensor, ...]:
        per_token, clipped = choice.surrogate(trained_lp, log_ratio, advantages_BT, segment, bounds)
        per_token = per_token.masked_fill(~segment, 0.0)
        if denominator == "sequence":
            row_means = per_token.sum(1) / segment.sum(1).clamp(min=1)
            loss = row_means.sum() / max(num_sequences, 1.0)
        elif denominator == "token":
            loss = per_token.sum() / max(num_tokens, 1.0)
        elif denominator == "all":
            loss = per_token.sum() / (counts.text + counts.image)
        else:
            loss = per_token.sum() / (counts.sequences * _checked_budget(budget, num_tokens))
        return loss, clipped[segment].float().mean()

    text_loss, text_clip_frac = modality(mask & ~is_image, counts.text, counts.text_sequences, text_budget)
    image_loss, image_clip_frac = modality(mask & is_image, counts.image, counts.image_sequences, image_budget)
    return PolicyLoss(
        loss=text_weight * text_loss + image_weight * image_loss,
        text_clip_frac=text_clip_frac,
        image_clip_frac=image_clip_frac,
        **_ratio_diagnostics(log_ratio.detach()[mask].exp()),
    )


@dataclass(frozen=True)
class _Bounds:
    """The limits of a ratio."""

    low: float
    high: float
    cispo_max: float


def _clip(ratio: Tensor, advantages: Tensor, bounds: _Bounds) -> tuple[Tensor, Tensor]:
    """Return the clipped loss per token, and where the clip removes the gradient."""
    loss = -torch.minimum(ratio * advantages, ratio.clamp(bounds.low, bounds.high) * advantages)
    clipped = ((advantages > 0) & (ratio > bounds.high)) | ((advantages < 0) & (ratio < bounds.low))
    return loss, clipped


def _token_ratio_surrogate(
    lp: Tensor, log_ratio: Tensor, advantages: Tensor, segment: Tensor, bounds: _Bounds
) -> tuple[Tensor, Tensor]:
    """Clip the ratio of each token."""
    return _clip(log_ratio.exp(), advantages, bounds)


def _segment_ratio_surrogate(
    lp: Tensor, log_ratio: Tensor, advantages: Tensor, segment: Tensor, bounds: _Bounds
) -> tuple[Tensor, Tensor]:
    """Clip one ratio per segment, the geometric mean of its tokens' ratios (GSPO)."""
    mean_log_ratio = log_ratio.masked_fill(~segment, 0.0).sum(1) / segment.sum(1).clamp(min=1)
    return _clip(mean_log_ratio.exp()[:, None].expand(segment.shape), advantages, bounds)


def _capped_weight_surrogate(
    lp: Tensor, log_ratio: Tensor, advantages: Tensor, segment: Tensor, bounds: _Bounds
) -> tuple[Tensor, Tensor]:
    """Weight log-probs by the detached, capped ratio: no token loses its gradient."""
    ratio = log_ratio.detach().exp()
    return -ratio.clamp(max=bounds.cispo_max) * advantages * lp, ratio > bounds.cispo_max


def _checked_budget(budget: float | None, num_tokens: float) -> float:
    """Return the budget; 1 where the modality is not trained and needs none."""
    if num_tokens and (budget is None or budget <= 0):
        raise ValueError(
            f"budget={budget}: the `budget` denominator divides by sequences times a fixed number of tokens, and this "
            "modality is trained. Pass text_budget and image_budget, the longest allowed thought and picture in tokens."
        )
    return budget or 1.0


def _ratio_diagnostics(ratio: Tensor) -> dict[str, Tensor]:
    """Summarise the ratios (K,) of the trained tokens."""
    names = ("ratio_mean", "ratio_min", "ratio_max", "ratio_max_deviation")
    if ratio.numel() == 0:
        return {name: ratio.new_full((), torch.nan) for name in names}
    return dict(zip(names, (ratio.mean(), ratio.min(), ratio.max(), (ratio - 1).abs().max()), strict=True))


@dataclass(frozen=True)
class _Variant:
    """How a variant divides and clips."""

    denominator: Denominator
    surrogate: Callable[..., tuple[Tensor, Tensor]]
    clip_low: float = 0.2
    clip_high: float = 0.2


_DAPO = _Variant("token", _token_ratio_surrogate)
VARIANTS = {
    "grpo": _Variant("sequence", _token_ratio_surrogate),
    "dapo": _DAPO,
    "bnpo": _DAPO,  # TRL's bnpo divides by the local batch's tokens, so a split would change its gradient
    "dr_grpo": _Variant("budget", _token_ratio_surrogate),
    "gspo": _Variant("sequence", _segment_ratio_surrogate, clip_low=3e-4, clip_high=4e-4),
    "cispo": _Variant("token", _capped_weight_surrogate),
}
