"""GenEval's verdict on a picture as a reward; its test prompts must not be trained on."""

import math
from collections.abc import Sequence

import numpy as np
import torch

from thinkdraw.benchmarks.geneval.verdict import ColorJudge, judgement_on, labels_for
from thinkdraw.rewards.base import BaseReward
from thinkdraw.rewards.judging import check_judge, pictures_of, run_detector
from thinkdraw.types import Detection, Detector, Prompt, Rollouts, Verdicts


class GenEvalMetric(BaseReward):
    """1 for a picture that GenEval calls correct, else 0; NaN where detector or colour judge gave no verdict.

    It applies to prompts with GenEval's clauses. colors: not needed where detections say their `color` themselves.
    """

    name = "metric:geneval"
    asks = ("detector", "colors")

    def __init__(self, detector: Detector, colors: ColorJudge | None = None):
        self.detector, self.colors = check_judge(Detector, detector), colors

    def __call__(self, rollouts: Rollouts, /) -> Verdicts:
        applies = torch.tensor([bool(prompt.include) for prompt in rollouts.prompts])
        rows = applies.nonzero().flatten().tolist()
        prompts, pictures = [rollouts.prompts[row] for row in rows], pictures_of(rollouts)[rows]
        found = run_detector(self.detector, pictures, labels_for(self.detector, prompts)) if rows else []
        scores = torch.full((len(rollouts),), math.nan)
        shown = zip(prompts, pictures.cpu().numpy(), found, strict=True)
        scores[rows] = torch.tensor([self._score(*row) for row in shown])
        return Verdicts.of(scores, applies)

    def _score(self, prompt: Prompt, picture: np.ndarray, found: Sequence[Detection] | None) -> float:
        verdict = None if found is None else judgement_on(prompt.metadata(), found, picture, self.colors).verdict
        return math.nan if verdict is None else float(verdict.correct)
