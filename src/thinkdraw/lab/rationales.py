"""Rationales: a grammar that writes ReasonGen-style thoughts for a given scene.

A faithful rationale states what the prompt leaves open (places, sizes, background) as it is in the scene. A careless one has the
same form, but makes up part of what the prompt leaves open, and sometimes gets even a demanded fact wrong. The base checkpoint is
pretrained on careless ones: it learns to write thoughts, not to think.
"""

from dataclasses import replace

import numpy as np

from thinkdraw.lab.scenes import BACKGROUNDS, COLORS, LATTICE, Scene, SceneObject
from thinkdraw.lab.shapes import SHAPES, SIZES, TEXTURES
from thinkdraw.lab.wording import NUMBERS, Example, article

ROWS = ("top", "top", "middle", "middle", "middle", "bottom", "bottom")
COLUMNS = ("left", "left", "center", "center", "center", "right", "right")

OPENERS = (
    "",
    "the plan:",
    "let me think.",
    "first the layout.",
    "i will draw {n}.",
    "the picture shows {n}.",
    "the scene has {n}.",
    "{n} in view.",
    "step by step:",
    "what goes where:",
)
CLAUSES = (
    "{thing} at the {place}",
    "at the {place} {thing}",
    "{thing}, {place}",
    "{place}: {thing}",
    "{thing} sits {place}",
)
GROUNDS = (
    "the background is {ground}",
    "{ground} background",
    "on a {ground} background",
    "behind it all {ground}",
)
STYLES = ("", "flat colors.", "clean edges.", "simple style.", "crisp shapes.")
NUM_SKELETONS = len(OPENERS) * len(CLAUSES) * len(GROUNDS) * len(STYLES) * 2


def place_name(row: int, col: int) -> str:
    """Name a lattice place: 'top left' … 'center'."""
    name = f"{ROWS[row]} {COLUMNS[col]}"
    return "center" if name == "middle center" else name


def object_name(thing: SceneObject) -> str:
    """Describe an object: 'a small striped red ring'. Solid texture is not mentioned."""
    texture = () if thing.texture == "solid" else (thing.texture,)
    return article(" ".join((thing.size, *texture, thing.color, thing.shape)))


def write_rationale(scene: Scene, rng: np.random.Generator) -> str:
    """Write a faithful rationale of the scene.

    Objects come in reading order or in the scene's.
    """
    objects = list(scene.objects)
    if rng.random() < 0.5:
        objects.sort(key=lambda t: (t.row, t.col))
    clause = CLAUSES[rng.integers(len(CLAUSES))]
    said = "; ".join(clause.format(thing=object_name(t), place=place_name(t.row, t.col)) for t in objects) + "."
    ground = GROUNDS[rng.integers(len(GROUNDS))].format(ground=scene.background) + "."
    number = NUMBERS[len(objects)] + (" object" if len(objects) == 1 else " objects")
    least = 1 if len(objects) == 1 else 0  # one object alone would make too short a thought without an opener
    opener = OPENERS[rng.integers(least, len(OPENERS))].format(n=number)
    style = STYLES[rng.integers(len(STYLES))]
    body = (ground, said) if rng.random() < 0.5 else (said, ground)
    return " ".join(part for part in (opener, *body, style) if part)


def write_thought(example: Example, scene: Scene, rng: np.random.Generator) -> str:
    """Write a faithful thought: what follows from the prompt, then the scene."""
    return " ".join([*example.derivation, write_rationale(scene, rng)])


def write_careless_rationale(
    scene: Scene, stated: list[set[str]], rng: np.random.Generator, slip: float = 0.04, guess: float = 0.3
) -> str:
    """Write a rationale that is partly made up.

    stated: per object of the scene, the attribute names that the prompt fixes. An open fact is a guess with probability `guess`, and a
    stated one is wrong with probability `slip`.
    """
    pools: dict[str, tuple] = {"shape": SHAPES, "color": tuple(COLORS), "size": SIZES, "texture": TEXTURES}
    pools |= {"row": tuple(range(LATTICE)), "col": tuple(range(LATTICE))}
    objects = []
    for thing, fixed in zip(scene.objects, stated, strict=True):
        changes = {}
        for name, pool in pools.items():
            if rng.random() < (slip if name in fixed or name == "shape" else guess):
                changes[name] = pool[rng.integers(len(pool))]
        objects.append(replace(thing, **changes))
    background = tuple(BACKGROUNDS)[rng.integers(len(BACKGROUNDS))] if rng.random() < guess else scene.background
    return write_rationale(Scene(tuple(objects), background), rng)
