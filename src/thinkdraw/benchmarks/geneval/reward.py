"""GenEval's verdict on a picture as a reward.

The benchmark's test prompts must not be trained on.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch

from thinkdraw.benchmarks.geneval.verdict import ColorJudge, judge_detections, labels_for
from thinkdraw.rewards.base import BaseReward
from thinkdraw.rewards.judging import check_judge, pictures_of, run_detector
from thinkdraw.types import Detection, Detector, Prompt, Rollouts, Verdicts


class GenEvalMetric(BaseReward):
    """1 for a picture that GenEval's rules call correct, else 0.

    It needs a detector, and prompts with GenEval's clauses; it does not apply to others. NaN where the detector or
    the colour judge gave no verdict. colors: not needed where detections have a `color` themselves.
    """

    name = "metric:geneval"
    asks = ("detector", "colors")

    def __init__(self, detector: Detector, colors: ColorJudge | None = None):
        self.detector, self.colors = check_judge(Detector, detector), colors

    def lacks(self, prompt: Prompt, /) -> str:
        return "" if prompt.include else "clauses of GenEval"

    def __call__(self, rollouts: Rollouts, /) -> Verdicts:
        applies = torch.tensor([bool(prompt.include) for prompt in rollouts.prompts])
        rows = applies.nonzero().flatten().tolist()
        prompts, pictures = [rollouts.prompts[row] for row in rows], pictures_of(rollouts)[rows]
        detections = run_detector(self.detector, pictures, labels_for(self.detector, prompts)) if rows else []
        scores = torch.full((len(rollouts),), math.nan)
        shown = zip(prompts, pictures.cpu().numpy(), detections, strict=True)
        scores[rows] = torch.tensor([self._score(*row) for row in shown])
        return Verdicts.of(scores, applies)

    def _score(self, prompt: Prompt, picture: np.ndarray, detections: Sequence[Detection] | None) -> float:
        verdict = (
            None
            if detections is None
            else judge_detections(prompt.metadata(), detections, picture, self.colors).verdict
        )
        return math.nan if verdict is None else float(verdict.correct)
