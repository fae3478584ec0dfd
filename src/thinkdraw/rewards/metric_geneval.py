"""GenEval's verdict as a metric reward, see `metric.py`."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from thinkdraw.errors import UserError
from thinkdraw.judges.colour import NoVerdict
from thinkdraw.rewards.judging import detected, held_to
from thinkdraw.rewards.rules import ColorOf, judge_picture, keep_detections
from thinkdraw.types import Detection, Detector, Prompt, Rollouts


@runtime_checkable
class ColorJudge(Protocol):
    """Names colours in one picture, (H, W, 3) uint8: (class name, its detections) → one colour each."""

    def color_of(self, picture: np.ndarray) -> ColorOf: ...


class GenEvalMetric:
    """1 for a picture that GenEval calls correct, else 0; NaN where detector or colour judge gave no verdict.

    It applies to prompts with GenEval's clauses. colors: not needed where detections say their `color` themselves.
    """

    name = "metric:geneval"

    def __init__(self, detector: Detector, colors: ColorJudge | None = None):
        self.detector, self.colors = held_to(Detector, detector), colors

    def applies(self, rollouts: Rollouts) -> Tensor:
        return torch.tensor([bool(prompt.include) for prompt in rollouts.prompts])

    def __call__(self, rollouts: Rollouts) -> Tensor:
        found = detected(self.detector, rollouts, [classes(prompt) for prompt in rollouts.prompts])
        assert rollouts.pictures is not None
        seen = zip(rollouts.prompts, rollouts.pictures.cpu().numpy(), found, strict=True)
        return torch.tensor([self._score(prompt, picture, objects) for prompt, picture, objects in seen])

    def _score(self, prompt: Prompt, picture: np.ndarray, found: Sequence[Detection] | None) -> float:
        if found is None or not prompt.include:
            return math.nan
        by_class = {name: [d for d in found if d.label == name] for name in classes(prompt)}
        kept = keep_detections(by_class, tag=prompt.tag)
        try:
            return float(judge_picture(prompt.metadata(), kept, self._color_of(picture)).correct)
        except NoVerdict:
            return math.nan

    def _color_of(self, picture: np.ndarray) -> ColorOf:
        def color_of(name: str, objects: Sequence[Detection]) -> list[str]:
            if all("color" in detection.attributes for detection in objects):
                return [detection.attributes["color"] for detection in objects]
            if self.colors is None:
                raise UserError("metric:geneval: this detector does not name colours. Give a judge of colours: colors.")
            return self.colors.color_of(picture)(name, objects)

        return color_of


def classes(prompt: Prompt) -> list[str]:
    clauses: Sequence[Mapping[str, Any]] = (*prompt.include, *prompt.exclude)
    return list(dict.fromkeys(str(clause["class"]) for clause in clauses))
