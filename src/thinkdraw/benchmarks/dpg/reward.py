"""DPG-Bench's score of a picture as a reward.

The benchmark's test prompts must not be trained on.
"""

import math
from collections.abc import Sequence

import torch

from thinkdraw.benchmarks.dpg.rules import DroppedItem, crop_score
from thinkdraw.errors import UserError
from thinkdraw.rewards.base import BaseReward
from thinkdraw.rewards.judging import check_judge, p_yes, pictures_of
from thinkdraw.types import Prompt, Questioner, Rollouts, Verdicts


class DpgMetric(BaseReward):
    """DPG-Bench's score of a picture: the share of its prompt's questions that count.

    It needs a questioner, and prompts with questions; it does not apply to others. 0..1, higher is better. A question
    counts if it and all that it depends on are answered yes. NaN where a question that matters got no verdict.
    """

    name = "metric:dpg"
    asks = ("questioner",)

    def __init__(self, questioner: Questioner):
        self.questioner = check_judge(Questioner, questioner)

    def lacks(self, prompt: Prompt, /) -> str:
        return "" if prompt.questions else "questions"

    def __call__(self, rollouts: Rollouts, /) -> Verdicts:
        texts = [[question.text for question in prompt.questions] for prompt in rollouts.prompts]
        answers = p_yes(self.questioner, pictures_of(rollouts), texts)
        scores = [_dpg_score(prompt, p_yes_of_row.tolist()) for prompt, p_yes_of_row in zip(rollouts.prompts, answers)]
        return Verdicts.of(torch.tensor(scores), torch.tensor([bool(texts_of_row) for texts_of_row in texts]))


def _dpg_score(prompt: Prompt, answers: Sequence[float]) -> float:
    if not prompt.questions:
        return math.nan
    try:
        return crop_score(prompt.questions, {q.id: p for q, p in zip(prompt.questions, answers)}).score
    except DroppedItem as error:
        raise UserError(f"metric:dpg: prompt {prompt.text[:60]!r}: {error}. Correct its questions.") from error
