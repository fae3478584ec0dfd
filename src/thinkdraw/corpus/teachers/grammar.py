"""The lab's grammar as a teacher: it describes lab pictures and plans lab prompts.

It looks at a picture with the exact detector.
"""

import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from thinkdraw.errors import UserError
from thinkdraw.lab.detector import detect_objects
from thinkdraw.lab.rationales import object_name, place_name, write_rationale
from thinkdraw.lab.scenes import LATTICE, PIXELS, STEP, Scene, SceneObject
from thinkdraw.lab.shapes import CELL, SHAPES, SIZES, TEXTURES
from thinkdraw.lab.specs import ObjectSpec, Spec, scene_for
from thinkdraw.lab.wording import NUMBERS, SENTENCES, article
from thinkdraw.runtime.json_types import JsonObject
from thinkdraw.types import Prompt


def grammar_answer(prompt: Prompt, picture: np.ndarray | None, seed: int) -> str:
    """Write an answer as JSON.

    prompt: the caption, which becomes the plain style; or, where there is no picture, what to plan.
    Raises UserError for a picture or prompt that is not the lab's.
    """
    rng = np.random.default_rng(seed)
    scene = scene_for(spec_of(prompt), rng) if picture is None else scene_of(picture)
    return json.dumps(describe(scene, prompt.text, rng))


def scene_of(picture: np.ndarray) -> Scene:
    """Turn what the detector sees into a scene. Raises UserError if it sees nothing."""
    view = detect_objects(picture) if picture.shape == (PIXELS, PIXELS, 3) else None
    if view is None or not view.detections:
        raise UserError(
            f"a picture of {picture.shape} is not the lab's: the grammar cannot describe it. Choose another teacher."
        )
    things = []
    for detection in view.detections:
        x1, y1, x2, y2 = detection.box
        row, col = (
            min(max(round(((low + high) / 2 - CELL / 2) / STEP), 0), LATTICE - 1) for low, high in ((y1, y2), (x1, x2))
        )
        things.append(SceneObject(detection.label, **detection.attributes, row=row, col=col))
    return Scene(tuple(sorted(things, key=lambda thing: (thing.row, thing.col))), view.background)


def spec_of(prompt: Prompt) -> Spec:
    """Read what a lab prompt demands from its clauses and questions.

    Raises UserError for another prompt.
    """
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
    """Write all nine fields of an `Answer`. caption: the plain style, if not empty.

    The dense rationale names things in reading order or, as often, in the caption's order. SFT thus sees both, as in
    the lab's own rationales, which know the prompt.
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
        "detailed_caption": write_rationale(replace(scene, objects=_in_caption_order(things, caption, rng)), rng),
    }


def _in_caption_order(things: Sequence[SceneObject], caption: str, rng: np.random.Generator) -> tuple[SceneObject, ...]:
    """Order things as the caption names their shapes.

    Things that it does not tell apart come in random order; things that it does not name come last.
    """
    shuffled = [things[i] for i in rng.permutation(len(things))]
    places = {shape: caption.find(shape) for shape in SHAPES}
    return tuple(sorted(shuffled, key=lambda thing: places[thing.shape] if places[thing.shape] >= 0 else len(caption)))
