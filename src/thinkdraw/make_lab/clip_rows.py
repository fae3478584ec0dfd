"""Training rows of the lab's CLIP: scenes, and counterparts with one changed fact.

Each has its own caption.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from thinkdraw.lab.prompts import Family, prompt_text, stream
from thinkdraw.lab.rationales import write_rationale
from thinkdraw.lab.scenes import BACKGROUNDS, COLORS, LATTICE, Scene, is_far_enough
from thinkdraw.lab.shapes import SHAPES, SIZES, TEXTURES
from thinkdraw.lab.specs import HELD_OUT_PAIRS, OPPOSITE, RELATIONS, Spec, satisfies

FAMILIES: dict[Family, float] = {"geneval": 0.4, "compbench": 0.3, "dense": 0.3}
VALUES = {"shape": SHAPES, "color": tuple(COLORS), "size": SIZES, "texture": TEXTURES}
# How often each kind of fact is changed, among those that a prompt states; hard ones more often.
WEIGHTS = {"shape": 1, "color": 1, "size": 1, "background": 1, "texture": 2, "count": 2, "relation": 3}
TRANSPOSED = {"left of": "above", "above": "left of", "right of": "below", "below": "right of"}


@dataclass(frozen=True)
class Counterexample:
    """A spec and a scene that satisfies it, after one change of `fact`."""

    fact: str
    spec: Spec
    scene: Scene


def make_counterexample(
    spec: Spec, scene: Scene, rng: np.random.Generator, trained_only: bool = True
) -> Counterexample:
    """Change the same stated fact of spec and scene.

    The old spec is then false of the new scene. trained_only: the new spec must belong to the training split. Held-out pairs of shape
    and colour never arise.
    """
    stated = {name for w in spec.objects for name in VALUES if getattr(w, name)}
    stated |= {"count"} if any(w.count > 1 for w in spec.objects) else set()
    stated |= ({"relation"} if spec.relations else set()) | ({"background"} if spec.background else set())
    facts = [fact for fact, weight in WEIGHTS.items() if fact in stated for _ in range(weight)]
    while True:
        fact = facts[rng.integers(len(facts))]
        if fact == "background":
            name = tuple(BACKGROUNDS)[rng.integers(len(BACKGROUNDS))]
            changed = replace(spec, background=name), replace(scene, background=name)
        elif fact == "relation":
            changed = _other_relation(spec, scene, RELATIONS[rng.integers(len(RELATIONS))])
        elif fact == "count":
            changed = _other_count(spec, scene, rng)
        else:
            changed = _other_value(spec, scene, fact, rng)
        if changed is not None and _may_be_shown(*changed, trained_only) and not satisfies(spec, changed[1]):
            return Counterexample(fact, *changed)


def _may_be_shown(spec: Spec, scene: Scene, trained_only: bool) -> bool:
    different = len({w.shape for w in spec.objects}) == len(spec.objects)
    held_out = any((t.shape, t.color) in HELD_OUT_PAIRS for t in scene.objects)
    in_split = not trained_only or spec.split() == "train"
    return different and not held_out and in_split and satisfies(spec, scene)


def _owners(spec: Spec) -> list[int]:
    """Return the index of the `ObjectSpec` that each object of a scene was drawn for."""
    return [k for k, w in enumerate(spec.objects) for _ in range(w.count)]


def _other_value(spec: Spec, scene: Scene, name: str, rng: np.random.Generator) -> tuple[Spec, Scene]:
    stated = [k for k, w in enumerate(spec.objects) if getattr(w, name)]
    k, value = stated[rng.integers(len(stated))], VALUES[name][rng.integers(len(VALUES[name]))]
    demands = [replace(w, **{name: value}) if i == k else w for i, w in enumerate(spec.objects)]
    objects = [replace(t, **{name: value}) if i == k else t for i, t in zip(_owners(spec), scene.objects, strict=True)]
    return replace(spec, objects=tuple(demands)), replace(scene, objects=tuple(objects))


def _other_count(spec: Spec, scene: Scene, rng: np.random.Generator) -> tuple[Spec, Scene] | None:
    """Add or remove one object of a kind.

    None where a kind would have five objects or the scene six, or where there is no room.
    """
    many = [k for k, w in enumerate(spec.objects) if w.count > 1]
    k, owners, objects = many[rng.integers(len(many))], _owners(spec), list(scene.objects)
    first, step = owners.index(k), 1 if rng.random() < 0.5 else -1
    if step < 0:
        del objects[first + int(rng.integers(spec.objects[k].count))]
    else:
        taken = [(t.row, t.col) for t in objects]
        free = [(r, c) for r in range(LATTICE) for c in range(LATTICE) if is_far_enough((r, c), taken)]
        if not free or spec.objects[k].count == 4 or len(objects) == 5:
            return None
        row, col = free[rng.integers(len(free))]
        objects.insert(first, replace(objects[first], row=row, col=col))
    demands = [replace(w, count=w.count + step) if i == k else w for i, w in enumerate(spec.objects)]
    return replace(spec, objects=tuple(demands)), replace(scene, objects=tuple(objects))


def _other_relation(spec: Spec, scene: Scene, new: str) -> tuple[Spec, Scene]:
    """Put the two related objects into relation `new`.

    The scene's places are transposed (rows become columns), or the two objects' places exchanged, or both.
    """
    ((i, relation, j),) = spec.relations
    objects = list(scene.objects)
    a, b = _owners(spec).index(i), _owners(spec).index(j)
    if new not in (relation, OPPOSITE[relation]):
        objects, relation = [replace(t, row=t.col, col=t.row) for t in objects], TRANSPOSED[relation]
    if new != relation:
        places = [(objects[k].row, objects[k].col) for k in (b, a)]
        for k, (row, col) in zip((a, b), places):
            objects[k] = replace(objects[k], row=row, col=col)
    return replace(spec, relations=((i, new, j),)), replace(scene, objects=tuple(objects))


@dataclass(frozen=True)
class Batch:
    """2·pairs rows, the two of each pair next to each other.

    rationales: of the first rows only.
    """

    specs: list[Spec]
    scenes: list[Scene]
    prompts: list[str]
    rationales: list[str]


def batches(pairs: int, told_pairs: int, seed: int) -> Iterator[Batch]:
    """Yield new scenes of the training split without end, described in new words."""
    rng = np.random.default_rng(seed)
    sources = {family: stream(family, "train", seed) for family in FAMILIES}
    while True:
        rows: list[tuple[Spec, Scene, str]] = []
        for family in rng.choice(list(FAMILIES), size=pairs, p=list(FAMILIES.values())):
            example = next(sources[family])
            scene = example.scene(rng)
            counterexample = make_counterexample(example.spec, scene, rng)
            for spec, drawn in ((example.spec, scene), (counterexample.spec, counterexample.scene)):
                rows.append((spec, drawn, prompt_text(spec, family, rng)))
        specs, scenes, prompts = (list(column) for column in zip(*rows, strict=True))
        yield Batch(specs, scenes, prompts, [write_rationale(scene, rng) for scene in scenes[: 2 * told_pairs]])


def truth_table(specs: Sequence[Spec], scenes: Sequence[Scene]) -> Tensor:
    """Return (texts, pictures) bool: whether the scene satisfies the spec."""
    return torch.tensor([[satisfies(spec, scene) for scene in scenes] for spec in specs])
