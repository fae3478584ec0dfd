"""Supervised loss on thoughts and image tokens."""

from typing import Literal

from torch import Tensor

from thinkdraw.objectives.counts import SegmentCounts, check_token_axes, masked_modality_mean, resolve_counts


def segment_loss(
    nll: Tensor,
    mask: Tensor,
    is_image: Tensor,
    text_weight: float = 0.35,
    image_weight: float = 1.0,
    reduction: Literal["segment", "token"] = "segment",
    denominators: SegmentCounts | None = None,
) -> Tensor:
    """Compute the weighted cross-entropy of text and image tokens, in nats.

    nll: (B, T) nats, minus the log-probability of each token.
    mask, is_image: (B, T) bool, mask True = trained.
    reduction: `segment` = text_weight · mean over text tokens + image_weight · mean over image tokens. `token` = Σ
        m·w·nll / Σ m over both modalities, where the many image tokens outvote the few text tokens.
    denominators: global counts when accumulating; the parts' losses then add up to the whole batch's.
    Raises ValueError for an unknown reduction, or a mask all False without global counts.
    `token` with weights 2.0 and 1.0 is ReasonGen-R1 (arXiv 2505.24875). At 100 text and 576 image tokens it equals
    `segment` with a ratio of 2 · 100 / 576 = 0.35, hence the default.
    """
    if reduction not in ("segment", "token"):
        raise ValueError(f"reduction={reduction!r}: choose 'segment' or 'token'.")
    if reduction == "segment":
        means = masked_modality_mean(nll, mask, is_image, denominators)
        return text_weight * means.text + image_weight * means.image
    check_token_axes(mask, is_image, nll=nll)
    counts = resolve_counts(mask, is_image, denominators)
    text = nll.masked_fill(~(mask & ~is_image), 0.0).sum()
    image = nll.masked_fill(~(mask & is_image), 0.0).sum()
    return (text_weight * text + image_weight * image) / (counts.text + counts.image)
