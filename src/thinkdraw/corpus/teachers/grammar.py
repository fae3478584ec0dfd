"""The lab's grammar as a teacher: it looks at a lab picture with the exact detector, or plans a scene for a lab prompt."""

import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from thinkdraw.errors import UserError
from thinkdraw.lab.detector import detect_objects
from thinkdraw.lab.prompts import NUMBERS, SENTENCES, article
from thinkdraw.lab.rationales import object_name, place_name, write_rationale
from thinkdraw.lab.scenes import LATTICE, PIXELS, STEP, Scene, SceneObject
from thinkdraw.lab.shapes import CELL, SHAPES, SIZES, TEXTURES
from thinkdraw.lab.specs import ObjectSpec, Spec, scene_for
from thinkdraw.runtime.json_types import JsonObject
from thinkdraw.types import Prompt


def grammar_answer(prompt: Prompt, picture: np.ndarray | None, seed: int) -> str:
    """An answer as JSON. prompt: the caption, which becomes the plain style, or what to plan where there is no picture.

    Raises UserError for a picture or prompt that is not the lab's.
    """
    rng = np.random.default_rng(seed)
    scene = scene_for(spec_of(prompt), rng) if picture is None else scene_of(picture)
    return json.dumps(describe(scene, prompt.text, rng))


def scene_of(picture: np.ndarray) -> Scene:
    """What the detector sees, as a scene. Raises UserError where it sees nothing."""
    found = detect_objects(picture) if picture.shape == (PIXELS, PIXELS, 3) else None
    if found is None or not found.detections:
        raise UserError(
            f"a picture of {picture.shape} is not the lab's: the grammar cannot describe it. Choose another teacher."
        )
    things = []
    for detection in found.detections:
        x1, y1, x2, y2 = detection.box
        row, col = (
            min(max(round(((low + high) / 2 - CELL / 2) / STEP), 0), LATTICE - 1) for low, high in ((y1, y2), (x1, x2))
        )
        things.append(SceneObject(detection.label, **detection.attributes, row=row, col=col))
    return Scene(tuple(sorted(things, key=lambda thing: (thing.row, thing.col))), found.background)


def spec_of(prompt: Prompt) -> Spec:
    """What a lab prompt demands, from its clauses and questions. Raises UserError for another prompt."""
    things, relations = [], []
    try:
        for clause in prompt.include:
            *words, shape = clause["class"].split()
            size = next((word for word in words if word in SIZES), None)
            texture = next((word for word in words if word in TEXTURES), None)
            if "position" in clause:
                relations.append((len(things), clause["position"][0], clause["position"][1]))
            things.append(ObjectSpec(shape, clause.get("color"), size, texture, clause["count"]))
        grounds = [q.fact["name"] for q in prompt.questions if q.fact and q.fact["kind"] == "background"]
        spec = Spec(tuple(things), tuple(relations), grounds[0] if grounds else None)
        if things and spec.key():
            return spec
    except (KeyError, ValueError):
        pass
    raise UserError(
        f"prompt {prompt.text[:60]!r} is not the lab's: the grammar cannot plan it. Choose another teacher."
    )


def describe(scene: Scene, caption: str, rng: np.random.Generator) -> JsonObject:
    """All nine fields of an `Answer`. caption: the plain style where it is given.

    The dense rationale goes through the things in reading order or, as often, in the caption's: SFT on the lab's own
    rationales, which know the prompt, sees both.
    """
    things = scene.objects
    short = [f"{thing.color} {thing.shape}" for thing in things]
    body = " and ".join(article(name) for name in short)
    plain = caption or f"a picture of {body}"
    placed = [(object_name(thing), place_name(thing.row, thing.col)) for thing in things]
    ground = f"{scene.background} background"
    first = "; then ".join(f"{name} at the {place}" for name, place in placed)
    openings = rng.permutation(len(SENTENCES))[:2]
    number = f"{NUMBERS.get(len(things), len(things))} object{'s' * (len(things) != 1)}"
    return {
        "short_caption": plain,
        "paraphrases": [SENTENCES[i].format(body) for i in openings],
        "tags": [*dict.fromkeys(short), ground],
        "object_prompts": list(dict.fromkeys(article(name) for name in short)),
        "varied_captions": [f"{body} on a {ground}", f"{number}: {', '.join(short)}"],
        "step_by_step": f"step by step: first a {ground}; then {first}.",
        "object_centric": [f"{name} sits {place}." for name, place in placed],
        "region_descriptions": [f"{place}: {name}." for name, place in placed],
        "detailed_caption": write_rationale(replace(scene, objects=_as_named(things, caption, rng)), rng),
    }


def _as_named(things: Sequence[SceneObject], caption: str, rng: np.random.Generator) -> tuple[SceneObject, ...]:
    """In the order in which the caption names their shapes; what it does not tell apart by chance, what it does not name last."""
    shuffled = [things[i] for i in rng.permutation(len(things))]
    places = {shape: caption.find(shape) for shape in SHAPES}
    return tuple(sorted(shuffled, key=lambda thing: places[thing.shape] if places[thing.shape] >= 0 else len(caption)))
