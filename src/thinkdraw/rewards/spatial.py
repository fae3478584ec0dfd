"""T2I-CompBench++'s rules for where things are.

They turn detections, and a depth map in 3D, into a score in 0..1. Constants, ties and oddities are those of
github.com/Karine-Huang/T2I-CompBench (arXiv 2307.06350, TPAMI 2025). Boxes are (x1, y1, x2, y2) in the pixels of a
picture whose short side is 479, y down; detections come best first.
"""

from collections.abc import Sequence

import numpy as np

from thinkdraw.types import Detection

MAX_IOU_2D = 0.1  # a greater overlap lowers a 2D relation's score
NEAR_PIXELS = 150  # between centres, along one axis
FULL_IOU_3D = 0.5  # with a greater overlap a 3D relation scores 1
MIN_SCORE_2D = 0.5  # upstream sets a picture's lower 2D scores to 0

Box = Sequence[float]
ThingPair = tuple[str, str] | None
"""The prompt's two things, the first first; None where its words do not tell them."""


def relation_score_2d(word: str | None, box_1: Box, box_2: Box) -> float:
    """Score how well box 1 stands to box 2 as `word` says, 0..1.

    0 for a word without a rule, "on top of" among them.
    Next to, on side of, near: 1 if closer than 150 pixels on one axis, else falling with the distance.
    Left, right, top and bottom: 0 on the wrong side or beyond the diagonal; 1 if the boxes overlap by less than IoU
    0.1, else 0.1 / IoU.
    """
    dx, dy = _offset(box_1, box_2)  # from thing 1 to thing 2: negative dx means that thing 1 is on the right
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
    """Score how well thing 1 is in front of, behind or hidden by thing 2, 0..1.

    Boxes that do not overlap score 0. depth: (H, W), larger is nearer. In the right order an IoU above 0.5 scores 1,
    one below 0.5 scores IoU / 0.5, and exactly 0.5 scores 0, as upstream. A box that covers no part of the map has no
    depth and scores 0.
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
    """Average the depth map over a box, with upstream's swapped axes.

    NaN where the box covers no part of the map.
    """
    x1, y1, x2, y2 = (int(value) for value in box)
    # Upstream swaps the axes: the map is (rows, columns), so x should cut the columns. Published numbers contain this.
    region = depth[x1:x2, y1:y2]
    return float(region.mean()) if region.size else float("nan")


def score_2d(word: str | None, things: ThingPair, detections: Sequence[Detection]) -> float:
    """Score a picture for a 2D relation: the two things, and how they stand.

    Each thing gives a quarter of its confidence, the relation half of its score. A detection counts if its label is
    exactly the thing's name, and only the first one. With one thing detected only its quarter is left. A sum below
    0.5 becomes 0.
    """
    firsts = [_first(detections, thing) for thing in things] if things else []
    present = [place for place in firsts if place is not None]
    score = sum((0.25 * detection.score for detection in present), 0.0)
    if len(present) == 2:
        score += relation_score_2d(word, present[0].box, present[1].box) / 2
    return 0.0 if score < MIN_SCORE_2D else score


def score_3d(word: str | None, things: ThingPair, detections: Sequence[Detection], depth: np.ndarray) -> float:
    """Score a picture for a 3D relation, as in 2D but without a lowest value.

    A detection counts if the thing's name is part of its label. While the second thing is searched for, each later
    detection of the first replaces the one before, as upstream. depth: (H, W) of the picture whose pixels the boxes
    count.
    """
    present = _latest_by_name(things, detections) if things else []
    score = sum((0.25 * detection.score for detection in present), 0.0)
    if len(present) == 2:
        score += relation_score_3d(word, present[0].box, present[1].box, depth) / 2
    return score


def iou(a: Box, b: Box) -> float:
    """Compute intersection over union of boxes; 0 for boxes without area.

    Unlike GenEval's, it adds no border pixel.
    """
    shared = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return shared / union if union else 0.0


def _offset(box_1: Box, box_2: Box) -> tuple[float, float]:
    """Return the (x, y) offset from the centre of box 1 to that of box 2."""
    return (box_2[0] + box_2[2]) / 2 - (box_1[0] + box_1[2]) / 2, (box_2[1] + box_2[3]) / 2 - (box_1[1] + box_1[3]) / 2


def _first(detections: Sequence[Detection], thing: str) -> Detection | None:
    return next((detection for detection in detections if detection.label == thing), None)


def _latest_by_name(things: tuple[str, str], detections: Sequence[Detection]) -> list[Detection]:
    """Return the detections that stand for the things, in the things' order."""
    present = [thing for thing in things if any(thing in detection.label for detection in detections)]
    latest: dict[int, Detection] = {}
    for detection in detections:
        for index, thing in enumerate(present):
            if thing in detection.label:
                latest[index] = detection
        if len(latest) == len(present):
            break
    return [latest[index] for index in sorted(latest)]
