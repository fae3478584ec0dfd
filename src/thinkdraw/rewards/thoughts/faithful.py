"""Whether a picture shows what its own thought announced, right or wrong as that may be for the prompt."""

import math
import re

import torch

from thinkdraw.errors import UserError
from thinkdraw.judges.lab import LabDetector
from thinkdraw.lab.claims import claim_holds, claims
from thinkdraw.rewards.base import BaseReward
from thinkdraw.rewards.judging import check_template, fill_template, held_to, p_yes, pictures_of, thoughts_of
from thinkdraw.types import Questioner, Rollouts, Verdicts

QUESTION = 'Does this image agree with the following statement about it? "{sentence}" Please answer yes or no.'


def sentences(thought: str) -> list[str]:
    """The thought's sentences, in order: what full stops, semicolons, !, ? and line ends part, with a letter in it."""
    parts = (part.strip() for part in re.split(r"(?<=[.!?;])\s+|\n", thought))
    return [part for part in parts if re.search(r"[^\W\d_]", part)]


class ThoughtFaithfulReward(BaseReward):
    """Mean P(yes) over the thought's sentences, each asked for alone, in 0..1, higher is better.

    It does not apply to a rollout whose thought has no sentence: NaN there, and no failure; elsewhere NaN = no verdict on
    one of them. A policy can please it by announcing little, so that it belongs beside `thought-format` or
    `thought-length`. question: with `{sentence}` in it. max_sentences: of a longer thought the first ones. Sentences that
    say nothing of the picture ("let me think.") are asked for as well.
    """

    name = "thought-faithful"
    asks = ("questioner",)

    def __init__(self, questioner: Questioner, question: str = QUESTION, max_sentences: int = 8):
        if max_sentences < 1:
            raise UserError(f"thought-faithful: max_sentences={max_sentences}: at least 1.")
        self.questioner, self.max_sentences = held_to(Questioner, questioner), max_sentences
        self.question = check_template("thought-faithful: question", question, "{sentence}")

    def __call__(self, rollouts: Rollouts, /) -> Verdicts:
        questions = [
            [
                fill_template(self.question, sentence, "{sentence}")
                for sentence in sentences(thought)[: self.max_sentences]
            ]
            for thought in thoughts_of(rollouts)
        ]
        answers = p_yes(self.questioner, pictures_of(rollouts), questions)
        # The mean of no answers is NaN.
        means = torch.stack([p_yes_of_row.mean() for p_yes_of_row in answers])
        return Verdicts.of(means, torch.tensor([bool(texts) for texts in questions]))


class LabThoughtFaithfulReward(BaseReward):
    """Share of the thought's claims that the lab's exact detector finds true, in 0..1, higher is better.

    A claim is a thing, the place it is said to stand at, or the background. It does not apply to a thought without claims:
    NaN there, and no failure; elsewhere it always has a verdict.
    """

    name = "lab-thought-faithful"
    asks = ("detector",)

    def __init__(self) -> None:
        self.detector = LabDetector()

    def __call__(self, rollouts: Rollouts, /) -> Verdicts:
        rows = zip(thoughts_of(rollouts), self.detector.look(pictures_of(rollouts)), strict=True)
        holds = [[claim_holds(claim, picture) for claim in claims(thought)] for thought, picture in rows]
        shares = [sum(claims_hold) / len(claims_hold) if claims_hold else math.nan for claims_hold in holds]
        return Verdicts.of(torch.tensor(shares), torch.tensor([bool(claims_hold) for claims_hold in holds]))
