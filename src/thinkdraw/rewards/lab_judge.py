"""Mean P(yes) over a prompt's yes/no questions: a learned judge in place of the exact detector."""

import torch
from torch import Tensor

from thinkdraw.errors import UserError
from thinkdraw.judges.lab import PolicyQuestioner
from thinkdraw.types import Questioner, Rollouts


class LabJudgeReward:
    """The mean over a prompt's questions of P(yes), in 0..1; NaN if one of its questions got no verdict.

    questioner: a `Questioner`, for instance a frozen copy of the policy. One call answers all questions of a batch.
    """

    name = "lab-judge"

    def __init__(self, questioner: Questioner, max_pairs: int = 512):
        self.questioner = PolicyQuestioner(questioner, max_pairs)

    def __call__(self, rollouts: Rollouts) -> Tensor:
        if rollouts.pictures is None:
            raise ValueError("rollouts without pictures: sample with decode=True, or decode before the reward.")
        for prompt in rollouts.prompts:
            if not prompt.questions:
                raise UserError(
                    f"prompt {prompt.text[:60]!r} has no questions: lab-judge needs prompts that carry them."
                )
        counts = torch.tensor([len(prompt.questions) for prompt in rollouts.prompts])
        row = torch.arange(len(rollouts)).repeat_interleave(counts)
        questions = [question.text for prompt in rollouts.prompts for question in prompt.questions]
        p_yes = self.questioner.answer(rollouts.pictures[row.to(rollouts.pictures.device)], questions)
        return torch.zeros(len(rollouts)).index_add_(0, row, p_yes) / counts
