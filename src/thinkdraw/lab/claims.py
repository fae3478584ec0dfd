"""What a thought in the lab's words claims, and whether the detector confirms it.

A claim is an object ("a small striped red ring"), the place where the thought puts it ("top left"), or the background.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from thinkdraw.lab.detector import DetectorOutput
from thinkdraw.lab.rationales import COLUMNS, ROWS, place_name
from thinkdraw.lab.scenes import BACKGROUNDS, COLORS, LATTICE, STEP
from thinkdraw.lab.shapes import CELL, SHAPES, SIZES, TEXTURES
from thinkdraw.types import Detection

CLAIM_KINDS = ("thing", "place", "background")
THRESHOLD = 0.3


def _one_of(words: Sequence[str]) -> str:
    return "(" + "|".join(dict.fromkeys(words)) + ")"


_ADJECTIVES = "".join(f"(?:{_one_of(words)} )?" for words in (SIZES, TEXTURES, tuple(COLORS)))
_THING = re.compile(rf"\ban? {_ADJECTIVES}{_one_of(SHAPES)}\b")
_PLACE = re.compile(rf"\b(?:{_one_of(ROWS)} {_one_of(COLUMNS)}|center)\b")
_NAMES = _one_of(tuple(BACKGROUNDS))
_GROUND = re.compile(rf"\b{_NAMES} background|(?:background is|behind it all) {_NAMES}\b")


@dataclass(frozen=True)
class Claim:
    """One claim of a thought.

    kind: one of `CLAIM_KINDS`. thing: attributes of the object (shape; size, texture and color where stated). name: of the place or
    background.
    """

    kind: str
    thing: dict[str, str]
    name: str = ""


def claims(thought: str) -> Iterator[Claim]:
    """Yield the claims of a thought; a texture that is not stated is not claimed."""
    for clause in re.split(r"[;.]", thought.lower()):
        if ground := _GROUND.search(clause):
            yield Claim("background", {}, ground[1] or ground[2])
        if match := _THING.search(clause):
            names = ("size", "texture", "color", "shape")
            thing = {name: value for name, value in zip(names, match.groups()) if value}
            yield Claim("thing", thing)
            if place := _PLACE.search(clause):
                yield Claim("place", thing, "center" if place[0] == "middle center" else place[0])


def claim_holds(claim: Claim, detected: DetectorOutput) -> bool:
    """Tell whether a claim is true of what the detector sees.

    A place is true if an object with all the stated attributes is there.
    """
    if claim.kind == "background":
        return detected.background == claim.name
    matches = [
        d for d in detected.detections
        if d.score > THRESHOLD and all({"shape": d.label, **d.attributes}[k] == v for k, v in claim.thing.items())
    ]  # fmt: skip
    return any(claim.kind == "thing" or place_of(d) == claim.name for d in matches)


def place_of(detection: Detection) -> str:
    """Name the lattice place nearest to a detection."""
    x1, y1, x2, y2 = detection.box
    row, col = (round(((low + high) / 2 - CELL / 2) / STEP) for low, high in ((y1, y2), (x1, x2)))
    return place_name(min(max(row, 0), LATTICE - 1), min(max(col, 0), LATTICE - 1))
