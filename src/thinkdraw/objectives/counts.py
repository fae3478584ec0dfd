"""Counts of trained tokens and rows: the denominators of every token loss.

A loss is a sum over tokens divided by a count. Where a batch is split into micro-batches or over ranks, each part
divides by the count of the *whole* batch. Then the parts' gradients add up to the gradient of the unsplit batch.
"""

from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
from torch import Tensor


@dataclass(frozen=True)
class SegmentCounts:
    """Counts of a batch; add those of several parts or ranks with `+`.

    text, image: trained tokens of each modality.
    sequences: rows with at least one trained token.
    text_sequences, image_sequences: rows with at least one trained token of that modality. A row without a thought
        has no text.
    The fields are plain floats: after `dataclasses.astuple` and an all-reduce, `SegmentCounts(*tensor.tolist())`
    rebuilds them.
    """

    text: float
    image: float
    sequences: float
    text_sequences: float
    image_sequences: float

    def __add__(self, counts: "SegmentCounts") -> "SegmentCounts":
        return SegmentCounts(*(getattr(self, f.name) + getattr(counts, f.name) for f in fields(self)))


class ModalityMeans(NamedTuple):
    """One scalar tensor per modality."""

    text: Tensor
    image: Tensor


def count_segments(mask: Tensor, is_image: Tensor) -> SegmentCounts:
    """Count the trained tokens, and the rows that have any.

    mask, is_image: (B, T) bool. Rows that leave the loss (no verdict) have mask False and are not counted.
    Raises ValueError if the two are not bool or differ in shape.
    """
    check_token_axes(mask, is_image)
    text, image = mask & ~is_image, mask & is_image
    sums = torch.stack(
        [text.sum(), image.sum(), mask.any(1).sum(), text.any(1).sum(), image.any(1).sum()],
    )
    return SegmentCounts(*(float(count) for count in sums.cpu()))


def resolve_counts(mask: Tensor, is_image: Tensor, counts: SegmentCounts | None) -> SegmentCounts:
    """Return the global counts, or else this batch's own.

    Raises ValueError if there is no trained token to divide by. With global counts, a part whose own mask is all
    False passes and contributes 0: a split may put all rows that left the loss into one micro-batch.
    """
    counts = count_segments(mask, is_image) if counts is None else counts
    if counts.text + counts.image == 0:
        raise ValueError(
            f"mask has no True in {tuple(mask.shape)}: a loss needs at least one trained token. Skip the batch, or "
            "check which rows left it (no verdict, equal rewards) and which tokens were forced."
        )
    return counts


def masked_modality_mean(
    values: Tensor, mask: Tensor, is_image: Tensor, counts: SegmentCounts | None = None
) -> ModalityMeans:
    """Average a per-token quantity over text and over image tokens, with gradient.

    values: (B, T).
    mask, is_image: (B, T) bool.
    counts: global counts when accumulating; the results then add up.
    A modality without trained tokens has mean 0, so that it adds nothing to a loss.
    Raises ValueError if there is no trained token at all or the shapes differ.
    """
    check_token_axes(mask, is_image, values=values)
    counts = resolve_counts(mask, is_image, counts)
    return ModalityMeans(
        text=values.masked_fill(~(mask & ~is_image), 0.0).sum() / max(counts.text, 1.0),
        image=values.masked_fill(~(mask & is_image), 0.0).sum() / max(counts.image, 1.0),
    )


def check_token_axes(mask: Tensor, is_image: Tensor, **others: Tensor) -> None:
    """Raise ValueError unless all tensors are (B, T), and mask and is_image are bool."""
    for name, tensor in {"mask": mask, "is_image": is_image}.items():
        if tensor.dtype != torch.bool or tensor.ndim != 2:
            raise ValueError(
                f"{name} is {tensor.dtype} {tuple(tensor.shape)}: it must be bool (B, T), True = keep. "
                f"Write {name}.bool()."
            )
    for name, tensor in {"is_image": is_image, **others}.items():
        if tensor.shape != mask.shape:
            raise ValueError(
                f"{name} is {tuple(tensor.shape)} and mask is {tuple(mask.shape)}: both lie on the token axis (B, T) "
                "of the rollouts. Select the same rows and positions for both."
            )
