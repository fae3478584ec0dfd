"""T2I-CompBench++'s rule for numbers of things: from detections to a score in 0..1.

Constants and oddities are those of github.com/Karine-Huang/T2I-CompBench (TPAMI 2025).
"""

from collections.abc import Sequence

from thinkdraw.rewards.spatial import Box
from thinkdraw.types import Detection

MAX_OVERLAP = 0.9
_DETECTED_AS = {
    "boy": "person", "girl": "person", "man": "person", "woman": "person",
    "ship": "boat", "telivision": "tv", "goldfish": "fish", "painting": "picture",
}  # fmt: skip


def detected_as(thing: str) -> str:
    """The name under which the detector knows a thing."""
    return _DETECTED_AS.get(thing, thing)


def without_duplicates(detections: Sequence[Detection]) -> list[Detection]:
    """Detections, best first, without those that an earlier kept one of the same label all but covers."""
    kept: list[Detection] = []
    for detection in detections:
        if not any(detection.label == other.label and _is_duplicate(detection.box, other.box) for other in kept):
            kept.append(detection)
    return kept


def numeracy_score(asked: Sequence[tuple[str, int]], detections: Sequence[Detection]) -> float:
    """Mean over the things asked for of ½ · at least one is there + ½ · exactly as many as asked are there.

    asked: (thing, number) as `asked_counts` reads them. detections: all of the detector's, best first.
    If no label is a thing's name, every label that contains it is renamed to it, for the things that follow as well.
    Raises ValueError where nothing is asked for.
    """
    if not asked:
        raise ValueError("no thing is asked for: a numeracy score needs at least one.")
    labels = [detection.label for detection in without_duplicates(detections)]
    weight, score = 1.0 / len(asked), 0.0
    for thing, number in asked:
        name = detected_as(thing)
        if name not in labels:
            labels = [name if name in label else label for label in labels]
        if name in labels:
            score += 0.5 * weight
            score += 0.5 * weight if labels.count(name) == number else 0.0
    return score


def _is_duplicate(a: Box, b: Box) -> bool:
    """IoU, or the share of either box that lies in the other, above 0.9; border pixels count."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]) + 1, min(a[3], b[3]) - max(a[1], b[1]) + 1
    shared = max(0, width) * max(0, height)
    area_a, area_b = ((box[2] - box[0] + 1) * (box[3] - box[1] + 1) for box in (a, b))
    return any(shared / whole > MAX_OVERLAP for whole in (area_a + area_b - shared, area_a, area_b))
