"""Mean P(yes) over a prompt's yes/no questions: a learned judge in place of the exact detector."""

import torch

from thinkdraw.errors import UserError
from thinkdraw.judges.lab import PolicyQuestioner
from thinkdraw.rewards.base import BaseReward
from thinkdraw.rewards.judging import pictures_of
from thinkdraw.types import Questioner, Rollouts, Verdicts


class LabJudgeReward(BaseReward):
    """The mean over a prompt's questions of P(yes), in 0..1; NaN if one of its questions got no verdict.

    questioner: a `Questioner`, for instance a frozen copy of the policy. One call answers all questions of a batch.
    """

    name = "lab-judge"
    asks = ("questioner",)

    def __init__(self, questioner: Questioner, max_pairs: int = 512):
        self.questioner = PolicyQuestioner(questioner, max_pairs)

    def __call__(self, rollouts: Rollouts, /) -> Verdicts:
        pictures = pictures_of(rollouts)
        for prompt in rollouts.prompts:
            if not prompt.questions:
                raise UserError(
                    f"prompt {prompt.text[:60]!r} has no questions: lab-judge needs prompts that carry them."
                )
        counts = torch.tensor([len(prompt.questions) for prompt in rollouts.prompts])
        row = torch.arange(len(rollouts)).repeat_interleave(counts)
        questions = [question.text for prompt in rollouts.prompts for question in prompt.questions]
        p_yes = self.questioner.answer(pictures[row.to(pictures.device)], questions)
        return Verdicts.of(torch.zeros(len(rollouts)).index_add_(0, row, p_yes) / counts)
