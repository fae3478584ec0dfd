"""GenEval's verdict on a picture from what the models saw: by these functions judge the benchmark and the metric reward.

The rules themselves, counts and colours and places, are in `rules.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from thinkdraw.errors import UserError
from thinkdraw.rewards.rules import ColorOf, GenEvalVerdict, judge_picture, keep_detections
from thinkdraw.runtime.json_types import JsonMapping
from thinkdraw.types import Detection, Detector, Prompt


@runtime_checkable
class ColorJudge(Protocol):
    """Names colours in one picture, (H, W, 3) uint8: (class name, its detections) → one colour each."""

    def color_of(self, picture: np.ndarray) -> ColorOf: ...


@dataclass(frozen=True)
class Judgement:
    """kept: the detections that count, by class, best first. colors: class → colours of those whose colour is asked for.

    colors and verdict are None where the judge of colours had none.
    """

    kept: Mapping[str, Sequence[Detection]]
    colors: Mapping[str, Sequence[str]] | None
    verdict: GenEvalVerdict | None


def judgement_on(
    metadata: JsonMapping, found: Sequence[Detection], picture: np.ndarray, colors: ColorJudge | None
) -> Judgement:
    """The verdict on one picture. metadata: an official record. found: its detections, in the detector's order.

    colors: asked where detections do not say their `color` themselves. Raises UserError where it is asked and absent.
    """
    kept = kept_by_class(metadata, found)
    named = _colors(picture, objects_to_color(metadata, kept), colors)
    return Judgement(kept, named, None if named is None else verdict_on(metadata, found, named))


def verdict_on(
    metadata: JsonMapping, found: Sequence[Detection], colors: Mapping[str, Sequence[str]]
) -> GenEvalVerdict:
    """The verdict on one picture, without any model.

    metadata: an official record. found: all detections of the picture, in the detector's order. colors: class → colours
    of its best kept detections, as many as `objects_to_color` asks for and in its order.
    """
    kept = kept_by_class(metadata, found)
    return judge_picture(metadata, kept, lambda name, objects: list(colors[name][: len(objects)]))


def kept_by_class(metadata: JsonMapping, found: Sequence[Detection]) -> dict[str, list[Detection]]:
    """The detections that count, per label and per class of the prompt, best first. found: in the detector's order."""
    clauses = (*metadata.get("include", ()), *metadata.get("exclude", ()))
    names = dict.fromkeys([d.label for d in found] + [clause["class"] for clause in clauses])
    by_class = {name: [d for d in found if _fits(d, name)] for name in names}
    return keep_detections(by_class, tag=metadata["tag"])


def objects_to_color(metadata: JsonMapping, kept: Mapping[str, Sequence[Detection]]) -> dict[str, Sequence[Detection]]:
    """Class → its best kept detections whose colour some clause asks for; a clause without enough objects asks nothing."""
    asked: dict[str, int] = {}
    for clause in metadata.get("include", ()):
        name, count = clause["class"], clause["count"]
        if "color" in clause and len(kept.get(name, ())) >= count:
            asked[name] = max(count, asked.get(name, 0))
    return {name: kept[name][:count] for name, count in asked.items()}


def labels_for(detector: Detector, prompts: Sequence[Prompt]) -> list[list[str]] | None:
    """What the detector is told to look for: each prompt's classes, or None = everything that it knows.

    Raises UserError for a class that the detector calls otherwise: never found, it would look like a bad picture.
    """
    known: Sequence[str] = getattr(detector, "names", ())
    asked = [_classes(prompt) for prompt in prompts]
    if unknown := [name for names in asked for name in names if known and name not in known]:
        raise UserError(
            f"geneval: the detector has no class {unknown[0]!r}. Give it GenEval's object_names.txt: "
            "names_file=PATH (--judge detector.names_file=PATH)."
        )
    return asked if getattr(detector, "needs_labels", False) else None


def _classes(prompt: Prompt) -> list[str]:
    return list(dict.fromkeys(str(clause["class"]) for clause in (*prompt.include, *prompt.exclude)))


def _colors(
    picture: np.ndarray, asked: Mapping[str, Sequence[Detection]], colors: ColorJudge | None
) -> dict[str, list[str]] | None:
    """Class → colours of its objects; None = no verdict."""
    if all("color" in d.attributes for objects in asked.values() for d in objects):
        return {name: [d.attributes["color"] for d in objects] for name, objects in asked.items()}
    if colors is None:
        raise UserError(
            "geneval: this detector does not name colours. Give a judge that does as colors (--judge colors=NAME)."
        )
    from thinkdraw.judges.detectors.colour import NoVerdict

    color_of = colors.color_of(picture)
    try:
        return {name: color_of(name, objects) for name, objects in asked.items()}
    except NoVerdict:
        return None


def _fits(detection: Detection, name: str) -> bool:
    """The class itself, or "small striped ring" where the detector tells size and texture besides."""
    if detection.label == name:
        return True
    if not detection.attributes or not name.endswith(f" {detection.label}"):
        return False
    words = name[: -len(detection.label)].split()
    return all(word in detection.attributes.values() for word in words)
