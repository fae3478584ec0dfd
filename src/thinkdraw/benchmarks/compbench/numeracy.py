"""T2I-CompBench++'s rule for numbers of things: detections → score in 0..1.

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


def detector_name(thing: str) -> str:
    """Return the name under which the detector knows a thing."""
    return _DETECTED_AS.get(thing, thing)


def without_duplicates(detections: Sequence[Detection]) -> list[Detection]:
    """Drop detections that a better one of the same label nearly covers.

    detections: best first.
    """
    distinct: list[Detection] = []
    for detection in detections:
        if not any(detection.label == other.label and _is_duplicate(detection.box, other.box) for other in distinct):
            distinct.append(detection)
    return distinct


def numeracy_score(counts: Sequence[tuple[str, int]], detections: Sequence[Detection]) -> float:
    """Score numbers: for each thing ½ if it is there, and ½ if the number is exact.

    The score is the mean over things. counts: (thing, number) as `counts_in_prompt` reads them.
    detections: all of the detector's, best first.
    If no label is a thing's name, every label that contains it is renamed to it, also for the things that follow, as
    upstream. Raises ValueError without any thing.
    """
    if not counts:
        raise ValueError("counts is empty: a numeracy score needs at least one thing.")
    labels = [detection.label for detection in without_duplicates(detections)]
    weight, score = 1.0 / len(counts), 0.0
    for thing, number in counts:
        name = detector_name(thing)
        if name not in labels:
            labels = [name if name in label else label for label in labels]
        if name in labels:
            score += 0.5 * weight
            score += 0.5 * weight if labels.count(name) == number else 0.0
    return score


def _is_duplicate(a: Box, b: Box) -> bool:
    """Tell whether IoU, or the share of either box inside the other, exceeds 0.9.

    Border pixels count.
    """
    width, height = min(a[2], b[2]) - max(a[0], b[0]) + 1, min(a[3], b[3]) - max(a[1], b[1]) + 1
    shared = max(0, width) * max(0, height)
    area_a, area_b = ((box[2] - box[0] + 1) * (box[3] - box[1] + 1) for box in (a, b))
    return any(shared / whole > MAX_OVERLAP for whole in (area_a + area_b - shared, area_a, area_b))
