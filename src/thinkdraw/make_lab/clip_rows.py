"""What the lab's CLIP is trained on: scenes with a twin that differs in one fact, each told by its own caption."""

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
# How often each kind of fact is changed, of those that a prompt states: most of what is hard.
WEIGHTS = {"shape": 1, "color": 1, "size": 1, "background": 1, "texture": 2, "count": 2, "relation": 3}
TURNED = {"left of": "above", "above": "left of", "right of": "below", "below": "right of"}


@dataclass(frozen=True)
class Counterexample:
    """A spec and a scene that satisfies it, after one change of `fact`."""

    fact: str
    spec: Spec
    scene: Scene


def make_counterexample(
    spec: Spec, scene: Scene, rng: np.random.Generator, trained_only: bool = True
) -> Counterexample:
    """Spec and scene with one and the same stated fact changed, so that the old spec is false of the new scene.

    trained_only: the new spec must belong to the training split. Held-out pairs of shape and colour never arise.
    """
    stated = {name for w in spec.objects for name in VALUES if getattr(w, name)}
    stated |= {"count"} if any(w.count > 1 for w in spec.objects) else set()
    stated |= ({"relation"} if spec.relations else set()) | ({"background"} if spec.background else set())
    facts = [fact for fact, weight in WEIGHTS.items() if fact in stated for _ in range(weight)]
    while True:
        fact = facts[rng.integers(len(facts))]
        if fact == "background":
            name = tuple(BACKGROUNDS)[rng.integers(len(BACKGROUNDS))]
            made = replace(spec, background=name), replace(scene, background=name)
        elif fact == "relation":
            made = _other_relation(spec, scene, RELATIONS[rng.integers(len(RELATIONS))])
        elif fact == "count":
            made = _other_count(spec, scene, rng)
        else:
            made = _other_value(spec, scene, fact, rng)
        if made is not None and _may_be_shown(*made, trained_only) and not satisfies(spec, made[1]):
            return Counterexample(fact, *made)


def _may_be_shown(spec: Spec, scene: Scene, trained_only: bool) -> bool:
    different = len({w.shape for w in spec.objects}) == len(spec.objects)
    held_out = any((t.shape, t.color) in HELD_OUT_PAIRS for t in scene.objects)
    in_split = not trained_only or spec.split() == "train"
    return different and not held_out and in_split and satisfies(spec, scene)


def _owners(spec: Spec) -> list[int]:
    """For each thing of a scene drawn for the spec, the index of the wanted thing that it is there for."""
    return [k for k, w in enumerate(spec.objects) for _ in range(w.count)]


def _other_value(spec: Spec, scene: Scene, name: str, rng: np.random.Generator) -> tuple[Spec, Scene]:
    stated = [k for k, w in enumerate(spec.objects) if getattr(w, name)]
    k, value = stated[rng.integers(len(stated))], VALUES[name][rng.integers(len(VALUES[name]))]
    wanted = [replace(w, **{name: value}) if i == k else w for i, w in enumerate(spec.objects)]
    things = [replace(t, **{name: value}) if i == k else t for i, t in zip(_owners(spec), scene.objects, strict=True)]
    return replace(spec, objects=tuple(wanted)), replace(scene, objects=tuple(things))


def _other_count(spec: Spec, scene: Scene, rng: np.random.Generator) -> tuple[Spec, Scene] | None:
    """One thing of a kind more or less; None where five would be of a kind or six in the scene, or there is no room."""
    many = [k for k, w in enumerate(spec.objects) if w.count > 1]
    k, owners, things = many[rng.integers(len(many))], _owners(spec), list(scene.objects)
    first, step = owners.index(k), 1 if rng.random() < 0.5 else -1
    if step < 0:
        del things[first + int(rng.integers(spec.objects[k].count))]
    else:
        taken = [(t.row, t.col) for t in things]
        free = [(r, c) for r in range(LATTICE) for c in range(LATTICE) if is_far_enough((r, c), taken)]
        if not free or spec.objects[k].count == 4 or len(things) == 5:
            return None
        row, col = free[rng.integers(len(free))]
        things.insert(first, replace(things[first], row=row, col=col))
    wanted = [replace(w, count=w.count + step) if i == k else w for i, w in enumerate(spec.objects)]
    return replace(spec, objects=tuple(wanted)), replace(scene, objects=tuple(things))


def _other_relation(spec: Spec, scene: Scene, wanted: str) -> tuple[Spec, Scene]:
    """The two related things stand in the wanted relation: the picture's places are transposed, or theirs exchanged, or both."""
    ((i, relation, j),) = spec.relations
    things = list(scene.objects)
    a, b = _owners(spec).index(i), _owners(spec).index(j)
    if wanted not in (relation, OPPOSITE[relation]):
        things, relation = [replace(t, row=t.col, col=t.row) for t in things], TURNED[relation]
    if wanted != relation:
        places = [(things[k].row, things[k].col) for k in (b, a)]
        for k, (row, col) in zip((a, b), places):
            things[k] = replace(things[k], row=row, col=col)
    return replace(spec, relations=((i, wanted, j),)), replace(scene, objects=tuple(things))


@dataclass(frozen=True)
class Batch:
    """2·pairs rows, each pair's two beside each other. rationales: of the first rows only."""

    specs: list[Spec]
    scenes: list[Scene]
    prompts: list[str]
    rationales: list[str]


def batches(pairs: int, told_pairs: int, seed: int) -> Iterator[Batch]:
    """Endless new scenes of the training split, told in new words."""
    rng = np.random.default_rng(seed)
    sources = {family: stream(family, "train", seed) for family in FAMILIES}
    while True:
        rows: list[tuple[Spec, Scene, str]] = []
        for family in rng.choice(list(FAMILIES), size=pairs, p=list(FAMILIES.values())):
            made = next(sources[family])
            scene = made.scene(rng)
            twin = make_counterexample(made.spec, scene, rng)
            for spec, drawn in ((made.spec, scene), (twin.spec, twin.scene)):
                rows.append((spec, drawn, prompt_text(spec, family, rng)))
        specs, scenes, prompts = (list(column) for column in zip(*rows, strict=True))
        yield Batch(specs, scenes, prompts, [write_rationale(scene, rng) for scene in scenes[: 2 * told_pairs]])


def truth_table(specs: Sequence[Spec], scenes: Sequence[Scene]) -> Tensor:
    """(texts, pictures) bool: whether the scene has everything that the spec demands."""
    return torch.tensor([[satisfies(spec, scene) for scene in scenes] for spec in specs])
