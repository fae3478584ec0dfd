"""What a prompt demands of a scene: the common core of prompts, scenes and splits.

A `Spec` lists objects (each attribute stated or open), relations between them and perhaps a background. Two prompts that demand the
same have the same `key`, whatever their words or clause order. Splits are made on keys, so that no test prompt has a paraphrase in
training.
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
    """One demanded object; None = the prompt leaves the attribute open.

    count > 1 demands exactly that many of the kind; with `exact` a count of 1 does as well.
    """

    shape: str
    color: str | None = None
    size: str | None = None
    texture: str | None = None
    count: int = 1
    exact: bool = False

    @property
    def is_counted(self) -> bool:
        """Whether more of the kind than `count` are wrong."""
        return self.exact or self.count > 1

    def label(self) -> str:
        """Return the class of GenEval's metadata: size, texture and shape.

        Colour has its own key there.
        """
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
    """What a prompt demands.

    objects: what must be there. relations: (i, relation, j) = object i is `relation` object j.
    """

    objects: tuple[ObjectSpec, ...]
    relations: tuple[tuple[int, str, int], ...] = ()
    background: str | None = None

    def key(self) -> str:
        """Return a canonical text.

        It is equal for paraphrases, permuted clauses and inverted relations.
        """
        names = [
            f"{'exactly ' * (w.exact and w.count == 1)}{w.count}x{w.size}/{w.texture}/{w.color}/{w.shape}"
            for w in self.objects
        ]
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
    """Tell whether centre a (x, y) is `relation` centre b, and in no other relation.

    This is GenEval's rule for boxes of lattice objects, which are all 16 pixels wide.
    """
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


def _draw_object(
    demand: ObjectSpec, place: tuple[int, int], avoid: tuple[ObjectSpec, ...], rng: np.random.Generator
) -> SceneObject:
    """Draw an object that fits `spec` and none of `avoid`.

    Open attributes are drawn at random; held-out pairs come only where the spec states them.
    """
    while True:
        color = demand.color or tuple(COLORS)[rng.integers(len(COLORS))]
        thing = SceneObject(
            demand.shape,
            color,
            demand.size or SIZES[rng.integers(len(SIZES))],
            demand.texture or TEXTURES[max(0, int(rng.integers(4)) - 1)],
            *place,
        )
        if demand.color is None and (thing.shape, color) in HELD_OUT_PAIRS:
            continue
        if not any(other.fits(thing) for other in avoid):
            return thing


def scene_for(spec: Spec, rng: np.random.Generator) -> Scene:
    """Draw a random scene that satisfies the spec and shows nothing else.

    Objects are at least three lattice steps apart.
    """
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
    objects = []
    for k, demand in enumerate(spec.objects):
        avoid = tuple(other for other in spec.objects if other != demand and not _implies(demand, other))
        objects += [_draw_object(demand, places[i], avoid, rng) for i, owner in enumerate(owners) if owner == k]
    return Scene(tuple(objects), spec.background or random_background(rng))


def _xy(place: tuple[int, int]) -> tuple[int, int]:
    return place[1] * STEP, place[0] * STEP


def _implies(narrow: ObjectSpec, wide: ObjectSpec) -> bool:
    """Tell whether everything that fits `narrow` fits `wide`."""
    return narrow.shape == wide.shape and all(
        getattr(wide, name) in (None, getattr(narrow, name)) for name in ("color", "size", "texture")
    )


def change_one_fact(spec: Spec, scene: Scene, rng: np.random.Generator) -> Scene:
    """Break one demanded fact of the scene: a negative that a detector must reject."""
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
        objects = list(scene.objects)
        background = scene.background
        if name == "count":
            del objects[owners.index(index)]
        elif name == "relation":
            i, _, j = spec.relations[0]
            a, b = owners.index(i), owners.index(j)
            objects[a], objects[b] = (
                replace(objects[a], row=objects[b].row, col=objects[b].col),
                replace(objects[b], row=objects[a].row, col=objects[a].col),
            )
        elif name == "background":
            background = "white" if spec.background != "white" else "gray"
        else:
            pool = pools[name]
            k = owners.index(index)
            objects[k] = replace(objects[k], **{name: pool[rng.integers(len(pool))]})
        changed = Scene(tuple(objects), background)
        if not satisfies(spec, changed):
            return changed


def satisfies(spec: Spec, scene: Scene) -> bool:
    """Tell whether the scene itself has what the spec demands.

    That is: existence, exact counts where more than one is demanded, relations between some fitting pair, background.
    """
    if spec.background and scene.background != spec.background:
        return False
    fitting = [[t for t in scene.objects if w.fits(t)] for w in spec.objects]
    for demand, matches in zip(spec.objects, fitting, strict=True):
        if len(matches) < demand.count or (demand.is_counted and len(matches) != demand.count):
            return False
    return all(
        any(relation_holds(relation, a.center, b.center) for a in fitting[i] for b in fitting[j] if a is not b)
        for i, relation, j in spec.relations
    )
