"""A prompt's yes/no questions, each asked alone, with dependencies between them."""

import math
from typing import Literal

import torch
from torch import Tensor

from thinkdraw.errors import UserError
from thinkdraw.rewards.base import BaseReward
from thinkdraw.rewards.judging import check_judge, p_yes, pictures_of
from thinkdraw.types import Prompt, Questioner, Rollouts, Verdicts


def question_points(prompt: Prompt, answers: Tensor, yes_at: float = 0.5) -> Tensor:
    """Compute what each question counts: its P(yes), or 0 if a precondition fails.

    A precondition fails if it counts less than `yes_at` itself. answers: P(yes) of each question.
    NaN where a question's own answer or a precondition's is missing, unless another precondition is a clear no.
    Raises UserError for a dependency on no question of the prompt, or on itself by any detour.
    """
    own = {question.id: float(answer) for question, answer in zip(prompt.questions, answers, strict=True)}
    parents = {question.id: question.depends_on for question in prompt.questions}
    known: dict[int, float] = {}

    def value(id: int, path: tuple[int, ...]) -> float:
        if id in path or id not in own:
            fault = "depends on itself" if id in path else "is none of its questions"
            raise UserError(f"prompt {prompt.text[:60]!r}: question {id} {fault}. Correct `depends_on`.")
        if id not in known:
            preconditions = [value(parent, (*path, id)) for parent in parents[id]]
            if any(v < yes_at for v in preconditions):  # a clear no decides, even beside a missing answer
                known[id] = 0.0
            else:
                known[id] = math.nan if any(math.isnan(v) for v in preconditions) else own[id]
        return known[id]

    return torch.tensor([value(question.id, ()) for question in prompt.questions], dtype=torch.float32)


class QuestionsReward(BaseReward):
    """Mean or product of P(yes) over the prompt's questions, with dependencies.

    It needs a questioner, and prompts with questions; it does not apply to others. 0..1, higher is better. A question
    whose precondition is a clear no counts 0, whatever its own answer. NaN = a question that matters has no answer.
    combine: mean or product over the questions. yes_at: a precondition that counts less is a no.
    The dependencies are DPG-Bench's (Hu et al. 2024, arXiv 2403.05135), which rounds answers to yes and no. Here
    P(yes) takes their place, as in DVReward (arXiv 2605.12495), so that pictures of one group differ in their
    rewards.
    """

    name = "questions"
    asks = ("questioner",)

    def __init__(self, questioner: Questioner, combine: Literal["mean", "product"] = "mean", yes_at: float = 0.5):
        if combine not in ("mean", "product"):
            raise UserError(f"questions: combine={combine!r} is unknown: choose mean or product.")
        self.questioner = check_judge(Questioner, questioner)
        self.combine, self.yes_at = combine, yes_at

    def lacks(self, prompt: Prompt, /) -> str:
        return "" if prompt.questions else "questions"

    def __call__(self, rollouts: Rollouts, /) -> Verdicts:
        texts = [[question.text for question in prompt.questions] for prompt in rollouts.prompts]
        answers = p_yes(self.questioner, pictures_of(rollouts), texts)
        counts = [question_points(prompt, p, self.yes_at) for prompt, p in zip(rollouts.prompts, answers)]
        over = torch.mean if self.combine == "mean" else torch.prod
        values = torch.stack([over(count) if len(count) else torch.tensor(math.nan) for count in counts])
        return Verdicts.of(values, torch.tensor([bool(prompt.questions) for prompt in rollouts.prompts]))
