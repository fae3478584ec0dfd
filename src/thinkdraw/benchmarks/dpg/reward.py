"""DPG-Bench's score of a picture as a reward; its test prompts must not be trained on."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from thinkdraw.benchmarks.dpg.rules import DroppedItem, crop_score
from thinkdraw.errors import UserError
from thinkdraw.rewards.judging import held_to, p_yes, pictures_of
from thinkdraw.types import Prompt, Questioner, Rollouts


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
