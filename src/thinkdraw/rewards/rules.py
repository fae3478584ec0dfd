"""GenEval's rules as pure functions: which detections count, and what is correct.

Constants, order of checks and wordings are those of github.com/djghosh13/geneval (arXiv 2310.11513).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from thinkdraw.types import Detection

COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
RELATIONS = ("left of", "right of", "above", "below")


@dataclass(frozen=True)
class GenEvalVerdict:
    """Whether a picture is correct, and GenEval's reasons if not.

    reason: lines joined by newlines, empty when correct.
    """

    correct: bool
    reason: str


ColorOf = Callable[[str, Sequence[Detection]], list[str]]
"""(class name, detections of it) → one colour per detection, in the same order."""

DetectionsByClass = Mapping[str, Sequence[Detection]]
"""Class name → its detections, best first; a class without any is absent."""

Clause = Mapping[str, Any]
Groups = list[Sequence[Detection] | None]
"""For each include clause so far, the objects that meet it; None where it failed."""


def keep_detections(
    detections: DetectionsByClass,
    *,
    tag: str,
    threshold: float = 0.3,
    counting_threshold: float = 0.9,
    max_per_class: int = 16,
    max_overlap: float = 1.0,
) -> dict[str, list[Detection]]:
    """Select the detections that GenEval looks at, per class, best first.

    detections: class name → detections in the detector's order.
    tag: "counting" uses `counting_threshold`, because its numbers are exact and must not count doubtful objects.
    max_overlap: greedy suppression at IoU ≥ this value; 1.0 switches it off, as in the official protocol.
    """
    limit = np.float32(counting_threshold if tag == "counting" else threshold)
    kept = {}
    for name, of_class in detections.items():
        # Upstream compares and sorts float32: a score stored as float32(0.3) is not above the threshold 0.3.
        scores = np.array([d.score for d in of_class], dtype=np.float32)
        best_first = np.argsort(scores, kind="stable")[::-1]  # as upstream: of equal scores the later one leads
        ranked = [of_class[i] for i in best_first if scores[i] > limit][:max_per_class]
        if ranked:
            kept[name] = ranked if max_overlap == 1.0 else _suppress_overlaps(ranked, max_overlap)
    return kept


def relative_position(box_a: Sequence[float], box_b: Sequence[float], margin: float = 0.1) -> set[str]:
    """List the relations of `RELATIONS` in which A stands to B: none, one, or two.

    Two hold on a far diagonal. box_a, box_b: (x1, y1, x2, y2) in pixels, y down.
    margin: share of the two sizes by which the offset between the centres is shortened.
    """
    boxes = np.array([box_a, box_b], dtype=np.float32).reshape(2, 2, 2)
    size = np.abs(boxes[:, 1] - boxes[:, 0])
    center_a, center_b = boxes.mean(axis=1)
    offset = center_a - center_b
    shortened = np.maximum(np.abs(offset) - margin * (size[0] + size[1]), 0) * np.sign(offset)
    if np.all(np.abs(shortened) < 1e-3):
        return set()
    # Upstream divides the shortened offset by the norm of the full one, so a near diagonal may give no relation.
    x, y = shortened / np.linalg.norm(offset)
    holds = (x < -0.5, x > 0.5, y < -0.5, y > 0.5)
    return {relation for relation, is_true in zip(RELATIONS, holds, strict=True) if is_true}


def judge_picture(metadata: Mapping[str, Any], kept: DetectionsByClass, color_of: ColorOf) -> GenEvalVerdict:
    """Judge one picture by GenEval's rules.

    metadata: a line of GenEval's metadata; `include` and `exclude` clauses are read.
    kept: the detections that `keep_detections` selects. color_of: called for clauses with a colour and enough
    objects.
    Raises ValueError if a position points at no earlier clause or `color_of` returns the wrong number of colours.
    """
    reasons: list[str] = []
    groups: Groups = []
    for index, clause in enumerate(metadata.get("include", ())):
        objects = kept.get(clause["class"], ())[: clause["count"]]
        reason = _include_failure(index, clause, objects, groups, color_of)
        groups.append(objects if reason is None else None)
        if reason is not None:
            reasons.append(reason)
    for clause in metadata.get("exclude", ()):
        num_objects = len(kept.get(clause["class"], ()))
        if num_objects >= clause["count"]:
            reasons.append(f"expected {clause['class']}<{clause['count']}, found {num_objects}")
    return GenEvalVerdict(not reasons, "\n".join(reasons))


def fact_share(metadata: Mapping[str, Any], kept: DetectionsByClass, color_of: ColorOf) -> float:
    """Compute the fraction of the prompt's facts that hold, in [0, 1].

    It is 1.0 exactly when `judge_picture` says correct. Facts: for each include clause that `count` objects exist,
    that they have its colour if it names one, and its position if it names one; and each exclude clause. Unlike in
    the verdict, an object of the wrong colour can still stand in the right place. Arguments and errors as for
    `judge_picture`.
    """
    facts: list[bool] = []
    groups: Groups = []
    for index, clause in enumerate(metadata.get("include", ())):
        objects = kept.get(clause["class"], ())[: clause["count"]]
        exists = len(objects) >= clause["count"]
        facts.append(exists)
        if "color" in clause:
            facts.append(exists and _colors(clause, objects, color_of).count(clause["color"]) >= clause["count"])
        if "position" in clause:
            targets = _targets(index, clause, groups)
            facts.append(exists and targets is not None and _violation(clause, objects, targets) is None)
        groups.append(objects if exists else None)
    facts += [len(kept.get(clause["class"], ())) < clause["count"] for clause in metadata.get("exclude", ())]
    return sum(facts) / len(facts) if facts else 1.0


def _include_failure(
    index: int, clause: Clause, objects: Sequence[Detection], groups: Groups, color_of: ColorOf
) -> str | None:
    """Return the reason line of the first check that the clause fails, if any."""
    name, count = clause["class"], clause["count"]
    if len(objects) < count:
        return f"expected {name}>={count}, found {len(objects)}"
    if "color" in clause:
        color, colors = clause["color"], _colors(clause, objects, color_of)
        if colors.count(color) < count:
            seen = ", ".join(f"{colors.count(c)} {c}" for c in COLORS if c in colors)
            return f"expected {color} {name}>={count}, found {colors.count(color)} {color}; and {seen}"
    if "position" in clause:
        relation, targets = clause["position"][0], _targets(index, clause, groups)
        if targets is None:
            return f"no target for {name} to be {relation}"
        seen_relations = _violation(clause, objects, targets)
        if seen_relations is not None:
            # Upstream joins an unordered set; the fixed order makes our files repeatable.
            seen = " and ".join(r for r in RELATIONS if r in seen_relations)
            return f"expected {name} {relation} target, found {seen} target"
    return None


def _colors(clause: Clause, objects: Sequence[Detection], color_of: ColorOf) -> list[str]:
    colors = list(color_of(clause["class"], objects))
    if len(colors) != len(objects):
        raise ValueError(
            f"color_of gave {len(colors)} colours for {len(objects)} objects; it must give one per object."
        )
    return colors


def _targets(index: int, clause: Clause, groups: Groups) -> Sequence[Detection] | None:
    target = clause["position"][1]
    if not 0 <= target < index:
        raise ValueError(f"position {clause['position']} of include clause {index} must point at an earlier clause.")
    return groups[target]


def _violation(clause: Clause, objects: Sequence[Detection], targets: Sequence[Detection]) -> set[str] | None:
    """Find the first (object, target) pair without the required relation.

    Returns the relations that this pair has; None if all pairs have the required one.
    """
    for subject, target in product(objects, targets):
        relations = relative_position(subject.box, target.box)
        if clause["position"][0] not in relations:
            return relations
    return None


def _suppress_overlaps(ranked: Sequence[Detection], max_overlap: float) -> list[Detection]:
    kept: list[Detection] = []
    for candidate in ranked:
        if all(_iou(better.box, candidate.box) < max_overlap for better in kept):
            kept.append(candidate)
    return kept


def _iou(a: Sequence[float], b: Sequence[float]) -> float:
    def area(x1: float, y1: float, x2: float, y2: float) -> float:
        return max(x2 - x1 + 1, 0) * max(y2 - y1 + 1, 0)  # inclusive pixels, as upstream

    shared = area(max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3]))
    union = area(*a) + area(*b) - shared
    return shared / union if union else 0.0
