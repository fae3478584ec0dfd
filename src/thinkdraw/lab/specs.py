"""What a prompt demands of a scene, apart from its words: the common core of prompts, scenes and splits.

A `Spec` lists wanted things (each attribute stated or open), relations between them and perhaps a background. Two prompts that
demand the same have the same `key`, whatever their words or clause order; splits are made on keys, so that no test prompt has a
paraphrase in training.
"""

import hashlib
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from thinkdraw.lab.scenes import COLORS, LATTICE, STEP, Scene, SceneObject, is_far_enough, random_background
from thinkdraw.lab.shapes import SHAPES, SIZES, TEXTURES

Split = Literal["train", "validation", "test"]
RELATIONS = ("left of", "right of", "above", "below")
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}

HELD_OUT_PAIRS = frozenset((SHAPES[i], tuple(COLORS)[(3 * i + 1) % len(COLORS)]) for i in range(len(SHAPES)))
"""Sixteen (shape, colour) pairs that no training prompt names and no training scene shows."""


@dataclass(frozen=True)
class ObjectSpec:
    """One demanded thing; None = the prompt leaves it open. count > 1 asks for exactly that many of the kind."""

    shape: str
    color: str | None = None
    size: str | None = None
    texture: str | None = None
    count: int = 1

    def label(self) -> str:
        """The class of GenEval's metadata: size, texture and shape (colour has its own key there)."""
        return " ".join(word for word in (self.size, self.texture, self.shape) if word)

    def phrase(self) -> str:
        return " ".join(word for word in (self.size, self.texture, self.color, self.shape) if word)

    def fits(self, thing: SceneObject) -> bool:
        return (
            thing.shape == self.shape
            and self.color in (None, thing.color)
            and self.size in (None, thing.size)
            and self.texture in (None, thing.texture)
        )


@dataclass(frozen=True)
class Spec:
    """objects: what must be there. relations: (i, relation, j) = thing i is `relation` thing j."""

    objects: tuple[ObjectSpec, ...]
    relations: tuple[tuple[int, str, int], ...] = ()
    background: str | None = None

    def key(self) -> str:
        """Canonical text: equal for paraphrases, permuted clauses and inverted relations."""
        names = [f"{w.count}x{w.size}/{w.texture}/{w.color}/{w.shape}" for w in self.objects]
        related = []
        for i, relation, j in self.relations:
            if relation in ("right of", "below"):
                i, relation, j = j, OPPOSITE[relation], i
            related.append(f"{names[i]} {relation} {names[j]}")
        return "; ".join([*sorted(names), *sorted(related), str(self.background)])

    def split(self) -> Split:
        bucket = hashlib.sha256(self.key().encode()).digest()[0] % 10
        return "test" if bucket < 2 else "validation" if bucket == 2 else "train"

    def has_held_out_pair(self) -> bool:
        return any((w.shape, w.color) in HELD_OUT_PAIRS for w in self.objects)

    def has_held_out_count(self) -> bool:
        return any(w.count > 4 for w in self.objects)


def relation_holds(relation: str, a: tuple[int, int], b: tuple[int, int]) -> bool:
    """Whether centre a (x, y) is `relation` centre b under GenEval's rule for boxes of lattice objects (both 16 px wide),
    and it is the only relation that holds."""
    dx, dy = a[0] - b[0], a[1] - b[1]
    match relation:
        case "left of":
            return dx < 0 and abs(dx) >= 2 * abs(dy)
        case "right of":
            return dx > 0 and abs(dx) >= 2 * abs(dy)
        case "above":
            return dy < 0 and abs(dy) >= 2 * abs(dx)
        case "below":
            return dy > 0 and abs(dy) >= 2 * abs(dx)
    raise ValueError(f"relation={relation!r}: the lab knows {', '.join(RELATIONS)}.")


def _filled(
    wanted: ObjectSpec, place: tuple[int, int], avoid: tuple[ObjectSpec, ...], rng: np.random.Generator
) -> SceneObject:
    """A thing that fits `wanted` and none of `avoid`, open attributes drawn at random, held-out pairs only when asked for."""
    while True:
        color = wanted.color or tuple(COLORS)[rng.integers(len(COLORS))]
        thing = SceneObject(
            wanted.shape,
            color,
            wanted.size or SIZES[rng.integers(len(SIZES))],
            wanted.texture or TEXTURES[max(0, int(rng.integers(4)) - 1)],
            *place,
        )
        if wanted.color is None and (thing.shape, color) in HELD_OUT_PAIRS:
            continue
        if not any(other.fits(thing) for other in avoid):
            return thing


def scene_for(spec: Spec, rng: np.random.Generator) -> Scene:
    """A random scene that satisfies the spec and shows nothing else, at least three lattice steps between objects."""
    count = sum(w.count for w in spec.objects)
    owners = [k for k, w in enumerate(spec.objects) for _ in range(w.count)]
    for _ in range(10_000):
        places: list[tuple[int, int]] = []
        for index in rng.permutation(LATTICE * LATTICE):
            place = (int(index) // LATTICE, int(index) % LATTICE)
            if is_far_enough(place, places):
                places.append(place)
                if len(places) == count:
                    break
        if len(places) < count:
            continue
        first = [places[owners.index(k)] for k in range(len(spec.objects))]
        if all(relation_holds(rel, _xy(first[i]), _xy(first[j])) for i, rel, j in spec.relations):
            break
    else:
        raise ValueError(f"no scene satisfies {spec.key()}: its relations contradict each other.")
    things = []
    for k, wanted in enumerate(spec.objects):
        avoid = tuple(other for other in spec.objects if other != wanted and not _implies(wanted, other))
        things += [_filled(wanted, places[i], avoid, rng) for i, owner in enumerate(owners) if owner == k]
    return Scene(tuple(things), spec.background or random_background(rng))


def _xy(place: tuple[int, int]) -> tuple[int, int]:
    return place[1] * STEP, place[0] * STEP


def _implies(narrow: ObjectSpec, wide: ObjectSpec) -> bool:
    """Whether everything that fits `narrow` fits `wide`."""
    return narrow.shape == wide.shape and all(
        getattr(wide, name) in (None, getattr(narrow, name)) for name in ("color", "size", "texture")
    )


def change_one_fact(spec: Spec, scene: Scene, rng: np.random.Generator) -> Scene:
    """The scene with one demanded fact broken: the negative that a correct detector must reject."""
    choices = [
        (k, name)
        for k, w in enumerate(spec.objects)
        for name in ("shape", "color", "size", "texture")
        if getattr(w, name)
    ]
    choices += [(k, "count") for k, w in enumerate(spec.objects) if w.count > 1]
    choices += [(-1, "relation")] * bool(spec.relations) + [(-2, "background")] * bool(spec.background)
    pools = {"shape": SHAPES, "color": tuple(COLORS), "size": SIZES, "texture": TEXTURES}
    owners = [k for k, w in enumerate(spec.objects) for _ in range(w.count)]
    while True:
        index, name = choices[rng.integers(len(choices))]
        things = list(scene.objects)
        background = scene.background
        if name == "count":
            del things[owners.index(index)]
        elif name == "relation":
            i, _, j = spec.relations[0]
            a, b = owners.index(i), owners.index(j)
            things[a], things[b] = (
                replace(things[a], row=things[b].row, col=things[b].col),
                replace(things[b], row=things[a].row, col=things[a].col),
            )
        elif name == "background":
            background = "white" if spec.background != "white" else "gray"
        else:
            pool = pools[name]
            k = owners.index(index)
            things[k] = replace(things[k], **{name: pool[rng.integers(len(pool))]})
        changed = Scene(tuple(things), background)
        if not satisfies(spec, changed):
            return changed


def satisfies(spec: Spec, scene: Scene) -> bool:
    """Ground truth on the scene itself: existence, exact counts where a count above one is asked for, relations between some
    fitting pair, background."""
    if spec.background and scene.background != spec.background:
        return False
    fitting = [[t for t in scene.objects if w.fits(t)] for w in spec.objects]
    for wanted, found in zip(spec.objects, fitting, strict=True):
        if len(found) < wanted.count or (wanted.count > 1 and len(found) != wanted.count):
            return False
    return all(
        any(relation_holds(relation, a.center, b.center) for a in fitting[i] for b in fitting[j] if a is not b)
        for i, relation, j in spec.relations
    )
