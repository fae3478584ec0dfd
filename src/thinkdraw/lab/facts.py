"""Facts about a picture, checked on its objects, and yes/no questions about them.

A fact is a dict: {"kind": "exists", "thing": attributes}, {"kind": "count", "thing", "count"},
{"kind": "relation", "thing", "relation", "other"} or {"kind": "background", "name"}. Attributes are any of shape, color, size and
texture.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from thinkdraw.lab.detector import DetectorOutput
from thinkdraw.lab.scenes import BACKGROUNDS, COLORS, Scene
from thinkdraw.lab.shapes import PLURALS, SHAPES, SIZES, TEXTURES
from thinkdraw.lab.specs import RELATIONS, relation_holds
from thinkdraw.lab.wording import NUMBERS, article
from thinkdraw.runtime.json_types import JsonObject

VALUES: dict[str, tuple[str, ...]] = {"shape": SHAPES, "color": tuple(COLORS), "size": SIZES, "texture": TEXTURES}
QUESTION_TYPES = ("exists", "color", "size", "texture", "count", "relation", "background")


@dataclass(frozen=True)
class PictureContents:
    """The objects of a picture, and its background.

    objects: each one's attributes and centre (x, y) in pixels.
    """

    objects: tuple[tuple[dict[str, str], tuple[float, float]], ...]
    background: str

    @staticmethod
    def of_scene(scene: Scene) -> "PictureContents":
        names = ("shape", "color", "size", "texture")
        return PictureContents(
            tuple(({n: getattr(t, n) for n in names}, t.center) for t in scene.objects), scene.background
        )

    @staticmethod
    def of_detections(detected: DetectorOutput, threshold: float = 0.3) -> "PictureContents":
        objects = []
        for d in detected.detections:
            if d.score > threshold:
                x1, y1, x2, y2 = d.box
                objects.append(({"shape": d.label, **d.attributes}, ((x1 + x2) / 2, (y1 + y2) / 2)))
        return PictureContents(tuple(objects), detected.background)

    def centers_of(self, attributes: dict[str, str]) -> list[tuple[float, float]]:
        """Return the centres of the objects that have all these attributes."""
        return [center for thing, center in self.objects if all(thing[k] == v for k, v in attributes.items())]


def is_true(fact: JsonObject, contents: PictureContents) -> bool:
    match fact["kind"]:
        case "exists":
            return bool(contents.centers_of(fact["thing"]))
        case "count":
            return len(contents.centers_of(fact["thing"])) == fact["count"]
        case "background":
            return contents.background == fact["name"]
        case "relation":
            pairs = [
                (a, b) for a in contents.centers_of(fact["thing"]) for b in contents.centers_of(fact["other"]) if a != b
            ]
            return any(relation_holds(fact["relation"], _snap(a), _snap(b)) for a, b in pairs)
    raise ValueError(f"fact kind {fact['kind']!r}: one of exists, count, relation, background.")


def _snap(center: tuple[float, float]) -> tuple[int, int]:
    """Snap a centre to the lattice.

    A silhouette's box may be off its cell's centre; snapping restores the object's exact place.
    """
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
    """Draw a question of the type whose true answer is `answer`.

    None where the scene allows none.
    """
    contents = PictureContents.of_scene(scene)
    for _ in range(20):
        fact, text = _propose(contents, kind, rng)
        if fact is not None and is_true(fact, contents) == answer:
            return text
    return None


def balanced_question(scene: Scene, kind: str, rng: np.random.Generator) -> tuple[str, Scene] | None:
    """Draw a question that is true of the scene, and a scene for which it is false.

    That scene differs in one object or in its background. None where no such pair is drawn. A question asked about both scenes has each
    answer once, so nobody can answer it without looking. VQA v2 pairs its pictures the same way (Goyal et al. 2017, arXiv 1612.00837).
    """
    contents = PictureContents.of_scene(scene)
    for _ in range(20):
        fact, text = _propose(contents, kind, rng)
        if fact is None or not is_true(fact, contents):
            continue
        for _ in range(50):
            changed = _change_one_object(scene, kind, rng)
            if not is_true(fact, PictureContents.of_scene(changed)):
                return text, changed
    return None


def _change_one_object(scene: Scene, kind: str, rng: np.random.Generator) -> Scene:
    """Change what the question's kind is about.

    That is the background, the places of two objects, or one attribute of an object.
    """
    if kind == "background":
        return replace(scene, background=tuple(BACKGROUNDS)[rng.integers(len(BACKGROUNDS))])
    objects = list(scene.objects)
    i, j = rng.integers(len(objects), size=2)
    if kind == "relation":
        places = (objects[i].row, objects[i].col), (objects[j].row, objects[j].col)
        objects[i] = replace(objects[i], row=places[1][0], col=places[1][1])
        if i != j:
            objects[j] = replace(objects[j], row=places[0][0], col=places[0][1])
    else:
        names = {"exists": tuple(VALUES), "count": ("shape",)}.get(kind, (kind,))
        name = names[rng.integers(len(names))]
        present = [thing.shape for thing in objects]
        value = present[j] if kind == "count" and rng.random() < 0.5 else _random_value(name, rng)
        objects[i] = replace(objects[i], **{name: value})
    return replace(scene, objects=tuple(objects))


def _propose(contents: PictureContents, kind: str, rng: np.random.Generator) -> tuple[JsonObject | None, str]:
    index = rng.integers(len(contents.objects))
    thing = contents.objects[index][0]
    match kind:
        case "exists":
            chosen = {"shape": thing["shape"]} | {
                n: thing[n] for n in ("color", "size", "texture") if rng.random() < 0.4
            }
            if rng.random() < 0.5:
                name = tuple(chosen)[rng.integers(len(chosen))]
                chosen[name] = _random_value(name, rng)
            fact = {"kind": "exists", "thing": chosen}
            return fact, question_text(fact)
        case "color" | "size" | "texture":
            value = thing[kind] if rng.random() < 0.5 else _random_value(kind, rng)
            attributes = {"shape": thing["shape"], kind: value}
            return {"kind": "exists", "thing": attributes}, question_text({"kind": "attribute", "thing": attributes})
        case "count":
            true_count = len(contents.centers_of({"shape": thing["shape"]}))
            fact = {
                "kind": "count",
                "thing": {"shape": thing["shape"]},
                "count": int(np.clip(true_count + rng.integers(-1, 2), 1, 5)),
            }
            return fact, question_text(fact)
        case "relation":
            partner = contents.objects[rng.integers(len(contents.objects))][0]
            if partner["shape"] == thing["shape"]:
                return None, ""
            relation = RELATIONS[rng.integers(len(RELATIONS))]
            fact = {
                "kind": "relation",
                "thing": {"shape": thing["shape"]},
                "relation": relation,
                "other": {"shape": partner["shape"]},
            }
            return fact, question_text(fact)
        case "background":
            names = tuple(BACKGROUNDS)
            name = contents.background if rng.random() < 0.5 else names[rng.integers(len(names))]
            fact = {"kind": "background", "name": name}
            return fact, question_text(fact)
    raise ValueError(f"question type {kind!r}: one of {', '.join(QUESTION_TYPES)}.")


def _random_value(name: str, rng: np.random.Generator) -> str:
    return VALUES[name][rng.integers(len(VALUES[name]))]


def frac_of_true_facts(facts: Sequence[JsonObject], contents: PictureContents) -> float:
    """Compute the fraction of facts that are true, 0..1."""
    return float(np.mean([is_true(f, contents) for f in facts]))
