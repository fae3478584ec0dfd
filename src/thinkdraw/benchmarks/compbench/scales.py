"""Detections and depth in the form that T2I-CompBench++'s rules expect.

That is in the pixels and with the thresholds of its UniDet set-up. Numbers are those of
github.com/Karine-Huang/T2I-CompBench and of detectron2, on which it runs UniDet.
"""

import dataclasses
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from PIL import Image
from torch import Tensor

from thinkdraw.rewards.spatial import iou
from thinkdraw.types import Detection

SHORT_SIDE, LONGEST_SIDE = 479, 480  # detectron2 resizes the short side to 479 and cuts the long side at 480
MIN_CONFIDENCE = 0.1
NMS_IOU = 0.5
MAX_DETECTIONS = 300


@runtime_checkable
class DepthJudge(Protocol):
    """A judge of depth: inverse depth of each pixel, larger is nearer.

    Pictures (B, H, W, 3) uint8 → (B, H, W) float32 in 0..1; NaN = no verdict.
    """

    def depth(self, pictures: Tensor) -> Tensor: ...


def detector_size(width: int, height: int) -> tuple[int, int]:
    """Compute the (width, height) to which UniDet's input is resized.

    The short side becomes 479, unless the long one would exceed 480.
    """
    short, long = sorted((width, height))
    new_short, new_long = SHORT_SIDE, int(SHORT_SIDE * long / short)
    if new_long > LONGEST_SIDE:
        new_short, new_long = int(LONGEST_SIDE * new_short / new_long), LONGEST_SIDE
    return (new_short, new_long) if width <= height else (new_long, new_short)


def to_unidet(detections: Sequence[Detection], width: int, height: int) -> list[Detection]:
    """Convert detections to those that UniDet would report, best first.

    Boxes go from the picture's pixels to the resized picture's, clipped to it. Scores are above 0.1, IoU is at most
    0.5 between two of a label, and at most 300 are kept.
    """
    new_width, new_height = detector_size(width, height)
    chosen: list[Detection] = []
    for detection in sorted(detections, key=lambda d: -d.score):
        if detection.score <= MIN_CONFIDENCE or len(chosen) == MAX_DETECTIONS:
            break
        x1, x2 = (min(max(x, 0), width) * new_width / width for x in (detection.box[0], detection.box[2]))
        y1, y2 = (min(max(y, 0), height) * new_height / height for y in (detection.box[1], detection.box[3]))
        scaled = dataclasses.replace(detection, box=(x1, y1, x2, y2), mask=None)
        if all(other.label != scaled.label or iou(other.box, scaled.box) <= NMS_IOU for other in chosen):
            chosen.append(scaled)
    return chosen


def depth_map(depth: np.ndarray) -> np.ndarray | None:
    """Convert one picture's inverse depth to the pixels of `to_unidet`'s boxes.

    depth: (H, W) in 0..1 → (H', W') float32; None if NaN. As upstream, it is a grey picture of 8 bits before and
    after it is resized.
    """
    if not np.isfinite(depth).all():
        return None
    grey = Image.fromarray((255 * depth).round().clip(0, 255).astype(np.uint8))
    size = detector_size(depth.shape[1], depth.shape[0])
    return np.asarray(grey.resize(size, Image.Resampling.BILINEAR), dtype=np.float32) / 255
