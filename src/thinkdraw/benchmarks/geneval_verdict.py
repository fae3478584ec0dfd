"""GenEval's verdict from what the models saw, without any model: detections and colours in, `Verdict` out."""

from collections.abc import Mapping, Sequence
from typing import Any

from thinkdraw.rewards.rules import Verdict, judge_picture, keep_detections
from thinkdraw.types import Detection


def verdict_on(metadata: Mapping[str, Any], found: Sequence[Detection], colors: Mapping[str, Sequence[str]]) -> Verdict:
    """The verdict on one picture.

    metadata: an official record. found: all detections of the picture, in the detector's order. colors: class → colours
    of its best kept detections, as many as `objects_to_color` asks for and in its order.
    """
    kept = kept_by_class(metadata, found)
    return judge_picture(metadata, kept, lambda name, objects: list(colors[name][: len(objects)]))


def kept_by_class(metadata: Mapping[str, Any], found: Sequence[Detection]) -> dict[str, list[Detection]]:
    """The detections that count, per label and per class of the prompt, best first. found: in the detector's order."""
    clauses = (*metadata.get("include", ()), *metadata.get("exclude", ()))
    names = dict.fromkeys([d.label for d in found] + [clause["class"] for clause in clauses])
    by_class = {name: [d for d in found if _fits(d, name)] for name in names}
    return keep_detections(by_class, tag=metadata["tag"])


def objects_to_color(
    metadata: Mapping[str, Any], kept: Mapping[str, Sequence[Detection]]
) -> dict[str, Sequence[Detection]]:
    """Class → its best kept detections whose colour some clause asks for; a clause without enough objects asks nothing."""
    asked: dict[str, int] = {}
    for clause in metadata.get("include", ()):
        name, count = clause["class"], clause["count"]
        if "color" in clause and len(kept.get(name, ())) >= count:
            asked[name] = max(count, asked.get(name, 0))
    return {name: kept[name][:count] for name, count in asked.items()}


def raw_detection(detection: Detection) -> dict[str, Any]:
    """A row's form of a detection, without its mask."""
    box = [float(side) for side in detection.box]
    return {"label": detection.label, "box": box, "score": float(detection.score), **detection.attributes}


def read_detection(raw: Mapping[str, Any]) -> Detection:
    """The detection of a row."""
    attributes = {key: value for key, value in raw.items() if key not in ("label", "box", "score")}
    return Detection(raw["label"], tuple(raw["box"]), raw["score"], attributes)


def _fits(detection: Detection, name: str) -> bool:
    """The class itself, or "small striped ring" where the detector tells size and texture besides."""
    if detection.label == name:
        return True
    if not detection.attributes or not name.endswith(f" {detection.label}"):
        return False
    words = name[: -len(detection.label)].split()
    return all(word in detection.attributes.values() for word in words)
