"""A learned judge in place of the lab's exact detector."""

import torch

from thinkdraw.errors import UserError
from thinkdraw.judges.lab import PolicyQuestioner
from thinkdraw.rewards.base import BaseReward
from thinkdraw.rewards.judging import pictures_of
from thinkdraw.types import Prompt, Questioner, Rollouts, Verdicts


class LabJudgeReward(BaseReward):
    """Mean P(yes) of a learned judge over the prompt's yes/no questions.

    It needs prompts with questions. 0..1, higher is better. NaN if one of a prompt's questions got no verdict.
    questioner: any `Questioner`; by default the lab's policy, frozen.
    max_pairs: pairs of picture and question that the judge sees at once.
    """

    name = "lab-judge"
    asks = ("questioner",)

    def __init__(self, questioner: Questioner, max_pairs: int = 512):
        self.questioner = PolicyQuestioner(questioner, max_pairs)

    def lacks(self, prompt: Prompt, /) -> str:
        return "" if prompt.questions else "questions"

    def __call__(self, rollouts: Rollouts, /) -> Verdicts:
        pictures = pictures_of(rollouts)
        for prompt in rollouts.prompts:
            if not prompt.questions:
                raise UserError(
                    f"prompt {prompt.text[:60]!r} has no questions, which lab-judge needs. Use prompts with questions."
                )
        counts = torch.tensor([len(prompt.questions) for prompt in rollouts.prompts])
        row = torch.arange(len(rollouts)).repeat_interleave(counts)
        questions = [question.text for prompt in rollouts.prompts for question in prompt.questions]
        p_yes = self.questioner.answer(pictures[row.to(pictures.device)], questions)
        return Verdicts.of(torch.zeros(len(rollouts)).index_add_(0, row, p_yes) / counts)
