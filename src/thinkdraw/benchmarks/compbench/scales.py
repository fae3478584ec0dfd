"""Detections and depth as T2I-CompBench++'s rules expect them: in the pixels and with the thresholds of its UniDet set-up.

Numbers are those of github.com/Karine-Huang/T2I-CompBench and of detectron2, on which it runs UniDet.
"""

import dataclasses
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from PIL import Image
from torch import Tensor

from thinkdraw.rewards.spatial import iou
from thinkdraw.types import Detection

SHORT_SIDE, LONGEST_SIDE = 479, 480
MIN_CONFIDENCE = 0.1
NMS_IOU = 0.5
MAX_DETECTIONS = 300


@runtime_checkable
class Depth(Protocol):
    """Inverse depth of pictures (B, H, W, 3) uint8: (B, H, W) float32 in 0..1, larger is nearer; NaN = no verdict."""

    def depth(self, pictures: Tensor) -> Tensor: ...


def detector_size(width: int, height: int) -> tuple[int, int]:
    """(width, height) to which UniDet's input is resized: short side 479, unless the long one would exceed 480."""
    short, long = sorted((width, height))
    new_short, new_long = SHORT_SIDE, int(SHORT_SIDE * long / short)
    if new_long > LONGEST_SIDE:
        new_short, new_long = int(LONGEST_SIDE * new_short / new_long), LONGEST_SIDE
    return (new_short, new_long) if width <= height else (new_long, new_short)


def as_unidet(detections: Sequence[Detection], width: int, height: int) -> list[Detection]:
    """Detections in pixels of the picture → those that UniDet would report, in the resized picture's pixels, best first.

    Scores above 0.1, at most IoU 0.5 between two of a label, at most 300 in all; boxes are clipped to the picture.
    """
    new_width, new_height = detector_size(width, height)
    kept: list[Detection] = []
    for found in sorted(detections, key=lambda detection: -detection.score):
        if found.score <= MIN_CONFIDENCE or len(kept) == MAX_DETECTIONS:
            break
        x1, x2 = (min(max(x, 0), width) * new_width / width for x in (found.box[0], found.box[2]))
        y1, y2 = (min(max(y, 0), height) * new_height / height for y in (found.box[1], found.box[3]))
        scaled = dataclasses.replace(found, box=(x1, y1, x2, y2), mask=None)
        if all(other.label != scaled.label or iou(other.box, scaled.box) <= NMS_IOU for other in kept):
            kept.append(scaled)
    return kept


def depth_map(depth: np.ndarray) -> np.ndarray | None:
    """One picture's inverse depth (H, W) in 0..1 → (H', W') float32 in the pixels of `as_unidet`'s boxes; None if NaN.

    It is a grey picture of 8 bits before and after it is resized, as upstream.
    """
    if not np.isfinite(depth).all():
        return None
    grey = Image.fromarray((255 * depth).round().clip(0, 255).astype(np.uint8))
    size = detector_size(depth.shape[1], depth.shape[0])
    return np.asarray(grey.resize(size, Image.Resampling.BILINEAR), dtype=np.float32) / 255
