"""A prompt taken apart into yes/no questions, each asked alone; one counts only if all that it depends on is true."""

import math
from typing import Literal

import torch
from torch import Tensor

from thinkdraw.errors import UserError
from thinkdraw.rewards.base import BaseReward
from thinkdraw.rewards.judging import held_to, p_yes, pictures_of
from thinkdraw.types import Prompt, Questioner, Rollouts, Verdicts


def counted(prompt: Prompt, answers: Tensor, yes_at: float = 0.5) -> Tensor:
    """What each of the prompt's questions counts: its P(yes) if all that it depends on counts at least `yes_at`, else 0.

    answers: P(yes) of each question. NaN where its own answer, or one that it depends on, is missing and no other is a
    no. Raises UserError for a dependency on no question of the prompt, or on itself over any way round.
    """
    own = {question.id: float(answer) for question, answer in zip(prompt.questions, answers, strict=True)}
    parents = {question.id: question.depends_on for question in prompt.questions}
    known: dict[int, float] = {}

    def value(id: int, path: tuple[int, ...]) -> float:
        if id in path or id not in own:
            fault = "depends on itself" if id in path else "is none of its questions"
            raise UserError(f"prompt {prompt.text[:60]!r}: question {id} {fault}. Correct `depends_on`.")
        if id not in known:
            needed = [value(parent, (*path, id)) for parent in parents[id]]
            if any(v < yes_at for v in needed):
                known[id] = 0.0
            else:
                known[id] = math.nan if any(math.isnan(v) for v in needed) else own[id]
        return known[id]

    return torch.tensor([value(question.id, ()) for question in prompt.questions], dtype=torch.float32)


class QuestionsReward(BaseReward):
    """Mean or product over a prompt's questions of what each counts, see `counted`; in 0..1, higher is better.

    It does not apply to a prompt without questions: NaN there, and no failure. Elsewhere NaN = a question that matters has
    no answer; one whose precondition is a clear no counts 0 whatever its own answer is.
    The cascade is DPG-Bench's (Hu et al. 2024, arXiv 2403.05135), which rounds answers to yes and no; P(yes) in place of
    these, as in DVReward (arXiv 2605.12495), tells the pictures of a group apart.
    """

    name = "questions"
    asks = ("questioner",)

    def __init__(self, questioner: Questioner, combine: Literal["mean", "product"] = "mean", yes_at: float = 0.5):
        if combine not in ("mean", "product"):
            raise UserError(f"questions: combine={combine!r}: choose mean or product.")
        self.questioner = held_to(Questioner, questioner)
        self.combine, self.yes_at = combine, yes_at

    def __call__(self, rollouts: Rollouts, /) -> Verdicts:
        texts = [[question.text for question in prompt.questions] for prompt in rollouts.prompts]
        answers = p_yes(self.questioner, pictures_of(rollouts), texts)
        counts = [counted(prompt, p, self.yes_at) for prompt, p in zip(rollouts.prompts, answers)]
        over = torch.mean if self.combine == "mean" else torch.prod
        values = torch.stack([over(count) if len(count) else torch.tensor(math.nan) for count in counts])
        return Verdicts.of(values, torch.tensor([bool(prompt.questions) for prompt in rollouts.prompts]))
