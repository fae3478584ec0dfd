"""GenEval's verdict on a picture from what the models saw.

The benchmark and the metric reward both use it. The rules for counts, colours and positions are in
`thinkdraw.rewards.rules`.
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
    """Names the colours of objects in one picture, (H, W, 3) uint8.

    It gives a function (class name, its detections) → one colour each.
    """

    def color_of(self, picture: np.ndarray) -> ColorOf: ...


@dataclass(frozen=True)
class Judgement:
    """What GenEval's rules make of one picture.

    kept: the detections that count, by class, best first. colors: class → colours of those whose colour matters.
    colors and verdict are None where the judge of colours had no verdict.
    """

    kept: Mapping[str, Sequence[Detection]]
    colors: Mapping[str, Sequence[str]] | None
    verdict: GenEvalVerdict | None


def judge_detections(
    metadata: JsonMapping, detections: Sequence[Detection], picture: np.ndarray, colors: ColorJudge | None
) -> Judgement:
    """Judge one picture by its detections.

    metadata: an official record. detections: in the detector's order. colors: asked where detections have no `color`
    themselves. Raises UserError where it is needed and absent.
    """
    kept = select_detections(metadata, detections)
    colors_by_class = _colors(picture, objects_to_color(metadata, kept), colors)
    return Judgement(
        kept, colors_by_class, None if colors_by_class is None else verdict_on(metadata, detections, colors_by_class)
    )


def verdict_on(
    metadata: JsonMapping, detections: Sequence[Detection], colors: Mapping[str, Sequence[str]]
) -> GenEvalVerdict:
    """Judge one picture without any model.

    metadata: an official record. detections: all of the picture, in the detector's order. colors: class → colours of
    its best selected detections, as many as `objects_to_color` asks for and in its order.
    """
    kept = select_detections(metadata, detections)
    return judge_picture(metadata, kept, lambda name, objects: list(colors[name][: len(objects)]))


def select_detections(metadata: JsonMapping, detections: Sequence[Detection]) -> dict[str, list[Detection]]:
    """Select the detections that count, per label and per class of the prompt.

    They come best first. detections: in the detector's order.
    """
    clauses = (*metadata.get("include", ()), *metadata.get("exclude", ()))
    names = dict.fromkeys([d.label for d in detections] + [clause["class"] for clause in clauses])
    by_class = {name: [d for d in detections if _fits(d, name)] for name in names}
    return keep_detections(by_class, tag=metadata["tag"])


def objects_to_color(metadata: JsonMapping, kept: Mapping[str, Sequence[Detection]]) -> dict[str, Sequence[Detection]]:
    """Map class → its best detections whose colour some clause asks for.

    A clause without enough objects asks for none.
    """
    num_of_class: dict[str, int] = {}
    for clause in metadata.get("include", ()):
        name, count = clause["class"], clause["count"]
        if "color" in clause and len(kept.get(name, ())) >= count:
            num_of_class[name] = max(count, num_of_class.get(name, 0))
    return {name: kept[name][:count] for name, count in num_of_class.items()}


def labels_for(detector: Detector, prompts: Sequence[Prompt]) -> list[list[str]] | None:
    """List what the detector is to look for: each prompt's classes.

    None = everything that it knows. Raises UserError for a class that the detector calls by another name: it would
    never be detected, and would look like a bad picture.
    """
    known: Sequence[str] = getattr(detector, "names", ())  # empty for a detector with an open vocabulary
    labels = [_classes(prompt) for prompt in prompts]
    if unknown := [name for names in labels for name in names if known and name not in known]:
        raise UserError(
            f"geneval: the detector has no class {unknown[0]!r}. Give it GenEval's object_names.txt: "
            "names_file=PATH (judges.detector.names_file=PATH)."
        )
    return labels if getattr(detector, "needs_labels", False) else None


def _classes(prompt: Prompt) -> list[str]:
    return list(dict.fromkeys(str(clause["class"]) for clause in (*prompt.include, *prompt.exclude)))


def _colors(
    picture: np.ndarray, objects_by_class: Mapping[str, Sequence[Detection]], colors: ColorJudge | None
) -> dict[str, list[str]] | None:
    """Map class → colours of its objects; None = no verdict."""
    if all("color" in d.attributes for objects in objects_by_class.values() for d in objects):
        return {name: [d.attributes["color"] for d in objects] for name, objects in objects_by_class.items()}
    if colors is None:
        raise UserError(
            "geneval: this detector does not name colours. Give a judge that does as colors (judges.colors=NAME)."
        )
    from thinkdraw.judges.detectors.colour import NoVerdict

    color_of = colors.color_of(picture)
    try:
        return {name: color_of(name, objects) for name, objects in objects_by_class.items()}
    except NoVerdict:
        return None


def _fits(detection: Detection, name: str) -> bool:
    """Tell whether a detection is of the class.

    A class may also be "small striped ring", where the detector tells size and texture besides the label.
    """
    if detection.label == name:
        return True
    if not detection.attributes or not name.endswith(f" {detection.label}"):
        return False
    words = name[: -len(detection.label)].split()
    return all(word in detection.attributes.values() for word in words)
