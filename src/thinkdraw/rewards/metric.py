"""The metric rewards: a benchmark's own score of a picture as what is optimised, by the functions that the benchmark uses.

"Metric reward" of the DPO-and-GRPO study (arXiv 2505.17017). A benchmark's test prompts must not be trained on.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from thinkdraw.errors import UserError
from thinkdraw.rewards.compbench import CompBenchJudge
from thinkdraw.rewards.compbench_ask import CATEGORIES, Asks
from thinkdraw.rewards.compbench_scales import Depth
from thinkdraw.rewards.dpg import DroppedItem, crop_score
from thinkdraw.rewards.judging import held_to, p_yes, pictures_of
from thinkdraw.types import Detector, Prompt, Questioner, Rollouts, Scorer


class CompBenchMetric:
    """T2I-CompBench++'s score of the category in each prompt's tag, 0..1 (a cosine for non_spatial), higher is better.

    Judges as `CompBenchJudge` takes them; those that no prompt's category needs may be left out. asker: an `Asker`, in a
    config {name: thinkdraw.benchmarks.compbench:open_asker, folder: PROMPTS, chunks: FILE_OR_SPACY_MODEL}. It does not
    apply to prompts with another tag. NaN where a judge gave no verdict that the score needs.
    """

    name = "metric:compbench"

    def __init__(
        self, asker: Asks, questioner: Questioner | None = None, detector: Detector | None = None,
        depth: Depth | None = None, scorer: Scorer | None = None,
    ):  # fmt: skip
        self.judge = CompBenchJudge(asker, questioner, detector, depth, scorer)

    def applies(self, rollouts: Rollouts) -> Tensor:
        return torch.tensor([prompt.tag in CATEGORIES for prompt in rollouts.prompts])

    def __call__(self, rollouts: Rollouts) -> Tensor:
        rows = self.applies(rollouts).nonzero().flatten().tolist()
        verdicts = self.judge(pictures_of(rollouts)[rows], [rollouts.prompts[row] for row in rows])
        scores = torch.full((len(rollouts),), math.nan)
        scores[rows] = torch.tensor([verdict.score for verdict in verdicts])
        return scores


class DpgMetric:
    """DPG-Bench's score of a picture: the share of its prompt's questions that count, 0..1, higher is better.

    It does not apply to prompts without questions. NaN where a question that matters got no verdict.
    """

    name = "metric:dpg"

    def __init__(self, questioner: Questioner):
        self.questioner = held_to(Questioner, questioner)

    def applies(self, rollouts: Rollouts) -> Tensor:
        return torch.tensor([bool(prompt.questions) for prompt in rollouts.prompts])

    def __call__(self, rollouts: Rollouts) -> Tensor:
        texts = [[question.text for question in prompt.questions] for prompt in rollouts.prompts]
        answers = p_yes(self.questioner, pictures_of(rollouts), texts)
        return torch.tensor([_dpg_score(prompt, given.tolist()) for prompt, given in zip(rollouts.prompts, answers)])


def _dpg_score(prompt: Prompt, answers: Sequence[float]) -> float:
    if not prompt.questions:
        return math.nan
    try:
        return crop_score(prompt.questions, {q.id: p for q, p in zip(prompt.questions, answers)}).score
    except DroppedItem as error:
        raise UserError(f"metric:dpg: prompt {prompt.text[:60]!r}: {error}. Correct its questions.") from error
