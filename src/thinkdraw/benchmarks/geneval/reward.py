"""GenEval's verdict as a metric reward, see `metric.py`."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from thinkdraw.benchmarks.geneval.verdict import ColorJudge, judgement_on, labels_for
from thinkdraw.rewards.judging import found_in, held_to, pictures_of
from thinkdraw.types import Detection, Detector, Prompt, Rollouts


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
        rows = self.applies(rollouts).nonzero().flatten().tolist()
        prompts, pictures = [rollouts.prompts[row] for row in rows], pictures_of(rollouts)[rows]
        found = found_in(self.detector, pictures, labels_for(self.detector, prompts)) if rows else []
        scores = torch.full((len(rollouts),), math.nan)
        judged = zip(prompts, pictures.cpu().numpy(), found, strict=True)
        scores[rows] = torch.tensor([self._score(*seen) for seen in judged])
        return scores

    def _score(self, prompt: Prompt, picture: np.ndarray, found: Sequence[Detection] | None) -> float:
        verdict = None if found is None else judgement_on(prompt.metadata(), found, picture, self.colors).verdict
        return math.nan if verdict is None else float(verdict.correct)
