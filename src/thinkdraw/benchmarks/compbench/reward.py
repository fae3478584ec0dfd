"""T2I-CompBench++'s score of a picture as a reward.

It is the metric reward of the DPO-and-GRPO study (arXiv 2505.17017). A benchmark's test prompts must not be trained
on.
"""

import math
from collections.abc import Mapping

import torch

from thinkdraw.benchmarks.compbench.asker import CATEGORIES, Asker
from thinkdraw.benchmarks.compbench.judge import CompBenchJudge
from thinkdraw.benchmarks.compbench.scales import DepthJudge
from thinkdraw.rewards.base import BaseReward
from thinkdraw.rewards.judging import pictures_of
from thinkdraw.types import Detector, Prompt, Questioner, Rollouts, Scorer, Verdicts


class CompBenchMetric(BaseReward):
    """T2I-CompBench++'s score of a picture, for the category in its prompt's tag.

    It needs an asker, and the judges for the prompts' categories; the others may be left out. It does not apply to
    prompts with another tag. 0..1 (a cosine for non_spatial), higher is better. NaN where a judge gave no verdict
    that the score needs.
    asker: reads the prompts; in a config {name: thinkdraw.benchmarks.compbench:open_asker, folder: PROMPTS, chunks:
    FILE_OR_SPACY_MODEL}. questioner: color, shape, texture, complex. detector: spatial, 3d_spatial, numeracy,
    complex.
    depth: 3d_spatial. scorer: non_spatial, complex.
    """

    name = "metric:compbench"

    def __init__(
        self, asker: Asker, questioner: Questioner | None = None, detector: Detector | None = None,
        depth: DepthJudge | None = None, scorer: Scorer | None = None,
    ):  # fmt: skip
        self.judge = CompBenchJudge(asker, questioner, detector, depth, scorer)

    @property
    def judges(self) -> Mapping[str, object]:
        roles = {role: getattr(self.judge, role) for role in ("asker", "depth", "detector", "questioner", "scorer")}
        return {f"judge.{role}": judge for role, judge in roles.items() if judge is not None}

    def lacks(self, prompt: Prompt, /) -> str:
        return "" if prompt.tag in CATEGORIES else "category of T2I-CompBench as its tag"

    def __call__(self, rollouts: Rollouts, /) -> Verdicts:
        applies = torch.tensor([prompt.tag in CATEGORIES for prompt in rollouts.prompts])
        rows = applies.nonzero().flatten().tolist()
        verdicts = self.judge(pictures_of(rollouts)[rows], [rollouts.prompts[row] for row in rows])
        scores = torch.full((len(rollouts),), math.nan)
        scores[rows] = torch.tensor([verdict.score for verdict in verdicts])
        return Verdicts.of(scores, applies)
