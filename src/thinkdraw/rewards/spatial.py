"""T2I-CompBench++'s rules for where things are: from detections, and a depth map in 3D, to a score in 0..1.

Constants, ties and oddities are those of github.com/Karine-Huang/T2I-CompBench (arXiv 2307.06350, TPAMI 2025). Boxes are
(x1, y1, x2, y2) in the pixels of a picture whose short side is 479, y down; detections come best first.
"""

from collections.abc import Sequence

import numpy as np

from thinkdraw.types import Detection

MAX_IOU_2D = 0.1
NEAR_PIXELS = 150
FULL_IOU_3D = 0.5
MIN_SCORE_2D = 0.5

Box = Sequence[float]
Things = tuple[str, str] | None
"""The prompt's two things, first to last; None where its words do not tell them."""


def relation_score_2d(word: str | None, box_1: Box, box_2: Box) -> float:
    """How well box 1 stands to box 2 as `word` says, 0..1; 0 for a word without a rule, "on top of" among them.

    Next to, on side of, near: 1 if closer than 150 pixels on one axis, else falling with the distance. Left, right, top
    and bottom: 0 on the wrong side or beyond the diagonal, 1 if the boxes overlap by less than IoU 0.1, else 0.1 / IoU.
    """
    dx, dy = _offset(box_1, box_2)
    if word in ("next to", "on side of", "near"):
        near = abs(dx) < NEAR_PIXELS or abs(dy) < NEAR_PIXELS
        return 1.0 if near else NEAR_PIXELS / max(abs(dx), abs(dy))
    holds = {
        "on the right of": dx < 0 and abs(dx) > abs(dy),
        "on the left of": dx > 0 and abs(dx) > abs(dy),
        "on the bottom of": dy < 0 and abs(dy) > abs(dx),
        "on the top of": dy > 0 and abs(dy) > abs(dx),
    }
    if word is None or not holds.get(word, False):
        return 0.0
    overlap = iou(box_1, box_2)
    return 1.0 if overlap < MAX_IOU_2D else MAX_IOU_2D / overlap


def relation_score_3d(word: str | None, box_1: Box, box_2: Box, depth: np.ndarray) -> float:
    """How well thing 1 is in front of, behind or hidden by thing 2, 0..1; boxes that do not overlap score 0.

    depth: (H, W), larger is nearer. With more than IoU 0.5 the right order scores 1, with less IoU / 0.5, and with
    exactly 0.5 nothing, as upstream. A box that covers no part of the map has no depth and scores 0.
    """
    if word not in ("in front of", "behind", "hidden"):
        return 0.0
    nearer = mean_depth(depth, box_1) - mean_depth(depth, box_2)
    in_order = nearer > 0 if word == "in front of" else nearer < 0
    overlap = iou(box_1, box_2)
    if not in_order or overlap == FULL_IOU_3D:
        return 0.0
    return 1.0 if overlap > FULL_IOU_3D else overlap / FULL_IOU_3D


def mean_depth(depth: np.ndarray, box: Box) -> float:
    """Mean of the map over a box as upstream cuts it, x along the rows: the mirrored place; NaN where that is empty."""
    x1, y1, x2, y2 = (int(value) for value in box)
    part = depth[x1:x2, y1:y2]
    return float(part.mean()) if part.size else float("nan")


def score_2d(word: str | None, things: Things, detections: Sequence[Detection]) -> float:
    """A picture's score for 2D relations: a quarter of each thing's confidence and half the relation's score.

    A thing is found under exactly its name, and its first detection counts. With one thing found only its part is
    left, and all that is below 0.5 is 0.
    """
    places = [_first(detections, thing) for thing in things] if things else []
    found = [place for place in places if place is not None]
    score = sum((0.25 * detection.score for detection in found), 0.0)
    if len(found) == 2:
        score += relation_score_2d(word, found[0].box, found[1].box) / 2
    return 0.0 if score < MIN_SCORE_2D else score


def score_3d(word: str | None, things: Things, detections: Sequence[Detection], depth: np.ndarray) -> float:
    """A picture's score for 3D relations, made as in 2D but without a lowest value.

    A thing is found where its name is part of a label. While the second one is looked for, each later detection of the
    first replaces the one before, as upstream. depth: (H, W) of the picture whose pixels the boxes count.
    """
    found = _found_in_parts(things, detections) if things else []
    score = sum((0.25 * detection.score for detection in found), 0.0)
    if len(found) == 2:
        score += relation_score_3d(word, found[0].box, found[1].box, depth) / 2
    return score


def iou(a: Box, b: Box) -> float:
    """Intersection over union of boxes without a border pixel; 0 for boxes without area."""
    shared = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return shared / union if union else 0.0


def _offset(box_1: Box, box_2: Box) -> tuple[float, float]:
    """From the centre of box 1 to that of box 2."""
    return (box_2[0] + box_2[2]) / 2 - (box_1[0] + box_1[2]) / 2, (box_2[1] + box_2[3]) / 2 - (box_1[1] + box_1[3]) / 2


def _first(detections: Sequence[Detection], thing: str) -> Detection | None:
    return next((detection for detection in detections if detection.label == thing), None)


def _found_in_parts(things: tuple[str, str], detections: Sequence[Detection]) -> list[Detection]:
    seen = [thing for thing in things if any(thing in detection.label for detection in detections)]
    latest: dict[int, Detection] = {}
    for detection in detections:
        for place, thing in enumerate(seen):
            if thing in detection.label:
                latest[place] = detection
        if len(latest) == len(seen):
            break
    return [latest[place] for place in sorted(latest)]
