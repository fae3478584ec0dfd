"""Words of the lab's prompts, and what a prompt demands as clauses and questions."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from thinkdraw.lab.scenes import Scene
from thinkdraw.lab.shapes import PLURALS
from thinkdraw.lab.specs import ObjectSpec, Spec, scene_for
from thinkdraw.runtime.json_types import JsonObject
from thinkdraw.types import Prompt, Question

PromptSplit = Literal["train", "validation", "test", "ood"]
NUMBERS = {1: "one", 2: "two", 3: "three", 4: "four", 5: "five"}
WORDINGS = {
    "left of": ("left of", "to the left of"),
    "right of": ("right of", "to the right of"),
    "above": ("above", "on top of"),
    "below": ("below", "under"),
}
HELD_OUT_WORDINGS = {
    "left of": ("on the left-hand side of",),
    "right of": ("on the right-hand side of",),
    "above": ("higher up than",),
    "below": ("lower down than",),
}
OPENINGS = ("a photo of {}",)
SENTENCES = ("{}", "a picture of {}", "an image with {}", "there is {}")
HELD_OUT_OPENINGS = ("please draw {} for me", "one can see {} here", "a quick sketch that shows {}")


@dataclass(frozen=True)
class Example:
    """A prompt with its spec, from which training scenes are drawn.

    derivation: sentences that lead from the prompt to what it demands, where that has to be worked out.
    """

    prompt: Prompt
    spec: Spec
    derivation: tuple[str, ...] = ()

    def scene(self, rng: np.random.Generator) -> Scene:
        return scene_for(self.spec, rng)


def article(noun: str) -> str:
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def noun_phrase(demand: ObjectSpec) -> str:
    """Write an object with its count: 'a red circle', 'three small hearts'."""
    phrase = demand.phrase()
    if demand.count == 1:
        return article(phrase)
    return f"{NUMBERS[demand.count]} {phrase[: -len(demand.shape)]}{PLURALS[demand.shape]}"


def clauses(spec: Spec) -> tuple[tuple[JsonObject, ...], tuple[JsonObject, ...]]:
    """Return GenEval's include and exclude clauses."""
    include: list[JsonObject] = []
    for k, demand in enumerate(spec.objects):
        clause: JsonObject = {"class": demand.label(), "count": demand.count}
        if demand.color:
            clause["color"] = demand.color
        for i, relation, j in spec.relations:
            if i == k:
                clause["position"] = [relation, j]
        include.append(clause)
    exclude = tuple({"class": w.label(), "count": w.count + 1} for w in spec.objects if w.is_counted)
    return tuple(include), exclude


def questions(spec: Spec) -> tuple[Question, ...]:
    """Return questions in DPG's form, one per fact.

    Attributes and relations depend on the existence of their objects.
    """
    out: list[Question] = []
    exists: list[int] = []
    for demand in spec.objects:
        whole = {"shape": demand.shape}
        exists.append(len(out))
        if not demand.is_counted:
            text = f"is there {article(demand.shape)}?"
            out.append(Question(len(out), text, (), {"kind": "exists", "thing": whole}))
        else:
            text = f"are there exactly {NUMBERS[demand.count]} {PLURALS[demand.shape]}?"
            if demand.count == 1:
                text = f"is there exactly one {demand.shape}?"
            out.append(Question(len(out), text, (), {"kind": "count", "thing": whole, "count": demand.count}))
        for name in ("color", "size", "texture"):
            value = getattr(demand, name)
            if value:
                fact = {
                    "kind": "count" if demand.is_counted else "exists",
                    "thing": whole | {name: value},
                    "count": demand.count,
                }
                out.append(Question(len(out), f"is the {demand.shape} {value}?", (exists[-1],), fact))
    for i, relation, j in spec.relations:
        a, b = spec.objects[i], spec.objects[j]
        fact = {"kind": "relation", "thing": {"shape": a.shape}, "relation": relation, "other": {"shape": b.shape}}
        out.append(Question(len(out), f"is the {a.shape} {relation} the {b.shape}?", (exists[i], exists[j]), fact))
    if spec.background:
        out.append(
            Question(
                len(out), f"is the background {spec.background}?", (), {"kind": "background", "name": spec.background}
            )
        )
    return tuple(out)
