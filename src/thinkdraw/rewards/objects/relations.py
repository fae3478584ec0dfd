"""The words for where a thing stands, and whether two boxes stand so.

All the words of T2I-R1's training prompts are there, T2I-CompBench's and GenEval's among them. T2I-R1's own code has
no branch for `above` and `on top of` and scores them 0: 364 of its 2,195 spatial prompts say `above`.
"""

from collections.abc import Sequence
from typing import Literal

from thinkdraw.rewards.rules import relative_position
from thinkdraw.rewards.spatial import relation_score_2d

Rule = Literal["t2i-compbench", "geneval"]

WORDINGS: dict[str, tuple[str, ...]] = {
    "left of": ("left of", "on the left of", "to the left of", "on the left side of"),
    "right of": ("right of", "on the right of", "to the right of", "on the right side of"),
    "above": ("above", "on the top of", "on top of", "top of", "over", "atop"),
    "below": ("below", "on the bottom of", "bottom of", "under", "underneath", "beneath"),
    "next to": (
        "next to", "near", "beside", "on side of", "on the side of", "by the side of", "close to", "adjacent to",
    ),
}  # fmt: skip
"""Relation that boxes can decide → its wordings."""
NOT_IN_2D = ("in front of", "behind", "hidden by", "hidden behind", "inside", "inside of", "in", "within", "on")
"""Boxes cannot tell these apart: they nest or overlap alike for a thing before, inside or behind another."""
RELATION_OF = {wording: relation for relation, wordings in WORDINGS.items() for wording in wordings}

_COMPBENCH_WORD = {
    "left of": "on the left of", "right of": "on the right of", "above": "on the top of", "below": "on the bottom of",
    "next to": "next to",
}  # fmt: skip
_COMPBENCH_SIDE = 479  # T2I-CompBench measures distances in pixels of pictures whose shorter side has so many


def relation_of(word: str, rule: Rule = "t2i-compbench") -> str | None:
    """Return the relation that a word stands for.

    None where boxes cannot tell it, or where the rule does not have it.
    """
    relation = RELATION_OF.get(" ".join(word.lower().split()))
    return None if rule == "geneval" and relation == "next to" else relation


def relation_score(
    word: str, subject: Sequence[float], object: Sequence[float], side: float, rule: Rule = "t2i-compbench"
) -> float | None:
    """Score how well `subject` stands to `object` as `word` says, 0..1.

    None where `relation_of` knows no relation.
    subject, object: (x1, y1, x2, y2) pixels, y down. side: the shorter side of the picture, pixels.
    rule `geneval`: 1 or 0, on centres with a margin of a tenth of the sizes (arXiv 2310.11513), none for "next to".
    rule `t2i-compbench` (arXiv 2307.06350): 0 unless the direction is that of the larger of the two offsets between
    centres; then 1, or 0.1 / IoU from an IoU of 0.1 on. "next to" scores 1 if one of the offsets is below 150 / 479
    of the side, else that distance / the larger offset.
    """
    relation = relation_of(word, rule)
    if relation is None:
        return None
    if rule == "geneval":
        return float(relation in relative_position(subject, object))
    scaled = [[value * _COMPBENCH_SIDE / side for value in box] for box in (subject, object)]
    return relation_score_2d(_COMPBENCH_WORD[relation], *scaled)
