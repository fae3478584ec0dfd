"""Facts about a picture, checked on what stands in it, and yes/no questions that ask for them.

A fact is a dict: {"kind": "exists", "thing": attributes}, {"kind": "count", "thing", "count"},
{"kind": "relation", "thing", "relation", "other"} or {"kind": "background", "name"}; attributes are any of shape, color, size, texture.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from thinkdraw.lab.detector import DetectorOutput
from thinkdraw.lab.prompts import NUMBERS, article
from thinkdraw.lab.scenes import BACKGROUNDS, COLORS, Scene
from thinkdraw.lab.shapes import PLURALS, SHAPES, SIZES, TEXTURES
from thinkdraw.lab.specs import RELATIONS, relation_holds
from thinkdraw.runtime.json_types import JsonObject

VALUES: dict[str, tuple[str, ...]] = {"shape": SHAPES, "color": tuple(COLORS), "size": SIZES, "texture": TEXTURES}
QUESTION_TYPES = ("exists", "color", "size", "texture", "count", "relation", "background")


@dataclass(frozen=True)
class PictureContents:
    """What stands in a picture: attributes and centre (x, y) of each object, and the background."""

    objects: tuple[tuple[dict[str, str], tuple[float, float]], ...]
    background: str

    @staticmethod
    def of_scene(scene: Scene) -> "PictureContents":
        names = ("shape", "color", "size", "texture")
        return PictureContents(
            tuple(({n: getattr(t, n) for n in names}, t.center) for t in scene.objects), scene.background
        )

    @staticmethod
    def of_detections(found: DetectorOutput, threshold: float = 0.3) -> "PictureContents":
        things = []
        for d in found.detections:
            if d.score > threshold:
                x1, y1, x2, y2 = d.box
                things.append(({"shape": d.label, **d.attributes}, ((x1 + x2) / 2, (y1 + y2) / 2)))
        return PictureContents(tuple(things), found.background)

    def fitting(self, wanted: dict[str, str]) -> list[tuple[float, float]]:
        """Centres of the things that have all the wanted attributes."""
        return [center for thing, center in self.objects if all(thing[k] == v for k, v in wanted.items())]


def is_true(fact: JsonObject, seen: PictureContents) -> bool:
    match fact["kind"]:
        case "exists":
            return bool(seen.fitting(fact["thing"]))
        case "count":
            return len(seen.fitting(fact["thing"])) == fact["count"]
        case "background":
            return seen.background == fact["name"]
        case "relation":
            pairs = [(a, b) for a in seen.fitting(fact["thing"]) for b in seen.fitting(fact["other"]) if a != b]
            return any(relation_holds(fact["relation"], _whole(a), _whole(b)) for a, b in pairs)
    raise ValueError(f"fact kind {fact['kind']!r}: one of exists, count, relation, background.")


def _whole(center: tuple[float, float]) -> tuple[int, int]:
    """The centre snapped to the lattice, so that a silhouette whose box is off its cell's centre keeps its exact place."""
    return round(center[0] / 8) * 8, round(center[1] / 8) * 8


def question_text(fact: JsonObject) -> str:
    match fact["kind"]:
        case "exists":
            thing = fact["thing"]
            return (
                f"is there {article(' '.join(thing[n] for n in ('size', 'texture', 'color', 'shape') if n in thing))}?"
            )
        case "count":
            thing = fact["thing"]
            words = [thing[n] for n in ("size", "texture", "color") if n in thing]
            if fact["count"] == 1:
                return f"is there exactly one {' '.join([*words, thing['shape']])}?"
            return f"are there exactly {NUMBERS[fact['count']]} {' '.join([*words, PLURALS[thing['shape']]])}?"
        case "relation":
            return f"is the {fact['thing']['shape']} {fact['relation']} the {fact['other']['shape']}?"
        case "attribute":
            name = next(n for n in fact["thing"] if n != "shape")
            return f"is the {fact['thing']['shape']} {fact['thing'][name]}?"
        case "background":
            return f"is the background {fact['name']}?"
    raise ValueError(f"fact kind {fact['kind']!r} has no question.")


def random_question(scene: Scene, kind: str, answer: bool, rng: np.random.Generator) -> str | None:
    """A question of the given type whose true answer is `answer`, or None where the scene allows none."""
    seen = PictureContents.of_scene(scene)
    for _ in range(20):
        fact, text = _propose(seen, kind, rng)
        if fact is not None and is_true(fact, seen) == answer:
            return text
    return None


def balanced_question(scene: Scene, kind: str, rng: np.random.Generator) -> tuple[str, Scene] | None:
    """A question that is true of the scene, and the scene with one thing changed so that it is false; or None.

    Every question asked of both has each answer once, so that nobody can answer it without looking (as VQA v2's pairs,
    Goyal et al. 2017, arXiv 1612.00837).
    """
    seen = PictureContents.of_scene(scene)
    for _ in range(20):
        fact, text = _propose(seen, kind, rng)
        if fact is None or not is_true(fact, seen):
            continue
        for _ in range(50):
            changed = _with_one_change(scene, kind, rng)
            if not is_true(fact, PictureContents.of_scene(changed)):
                return text, changed
    return None


def _with_one_change(scene: Scene, kind: str, rng: np.random.Generator) -> Scene:
    """Another background, two things in each other's places, or a thing with one other attribute: what the kind asks for."""
    if kind == "background":
        return replace(scene, background=tuple(BACKGROUNDS)[rng.integers(len(BACKGROUNDS))])
    things = list(scene.objects)
    i, j = rng.integers(len(things), size=2)
    if kind == "relation":
        places = (things[i].row, things[i].col), (things[j].row, things[j].col)
        things[i] = replace(things[i], row=places[1][0], col=places[1][1])
        if i != j:
            things[j] = replace(things[j], row=places[0][0], col=places[0][1])
    else:
        names = {"exists": tuple(VALUES), "count": ("shape",)}.get(kind, (kind,))
        name = names[rng.integers(len(names))]
        present = [thing.shape for thing in things]
        other = present[j] if kind == "count" and rng.random() < 0.5 else _other(name, rng)
        things[i] = replace(things[i], **{name: other})
    return replace(scene, objects=tuple(things))


def _propose(seen: PictureContents, kind: str, rng: np.random.Generator) -> tuple[JsonObject | None, str]:
    index = rng.integers(len(seen.objects))
    thing = seen.objects[index][0]
    match kind:
        case "exists":
            chosen = {"shape": thing["shape"]} | {
                n: thing[n] for n in ("color", "size", "texture") if rng.random() < 0.4
            }
            if rng.random() < 0.5:
                name = tuple(chosen)[rng.integers(len(chosen))]
                chosen[name] = _other(name, rng)
            fact = {"kind": "exists", "thing": chosen}
            return fact, question_text(fact)
        case "color" | "size" | "texture":
            value = thing[kind] if rng.random() < 0.5 else _other(kind, rng)
            asked = {"shape": thing["shape"], kind: value}
            return {"kind": "exists", "thing": asked}, question_text({"kind": "attribute", "thing": asked})
        case "count":
            same = len(seen.fitting({"shape": thing["shape"]}))
            fact = {
                "kind": "count",
                "thing": {"shape": thing["shape"]},
                "count": int(np.clip(same + rng.integers(-1, 2), 1, 5)),
            }
            return fact, question_text(fact)
        case "relation":
            other = seen.objects[rng.integers(len(seen.objects))][0]
            if other["shape"] == thing["shape"]:
                return None, ""
            relation = RELATIONS[rng.integers(len(RELATIONS))]
            fact = {
                "kind": "relation",
                "thing": {"shape": thing["shape"]},
                "relation": relation,
                "other": {"shape": other["shape"]},
            }
            return fact, question_text(fact)
        case "background":
            names = tuple(BACKGROUNDS)
            name = seen.background if rng.random() < 0.5 else names[rng.integers(len(names))]
            fact = {"kind": "background", "name": name}
            return fact, question_text(fact)
    raise ValueError(f"question type {kind!r}: one of {', '.join(QUESTION_TYPES)}.")


def _other(name: str, rng: np.random.Generator) -> str:
    return VALUES[name][rng.integers(len(VALUES[name]))]


def frac_of_true_facts(facts: Sequence[JsonObject], seen: PictureContents) -> float:
    """Fraction of facts that hold, 0..1."""
    return float(np.mean([is_true(f, seen) for f in facts]))
