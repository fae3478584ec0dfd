"""Whether a picture shows what its own thought announced, right or wrong as that may be for the prompt."""

import math
import re

import torch
from torch import Tensor

from thinkdraw.errors import UserError
from thinkdraw.judges.lab import LabDetector
from thinkdraw.lab.claims import claim_holds, claims
from thinkdraw.rewards.judging import check_template, held_to, p_yes, pictures_of, thoughts_of, worded
from thinkdraw.types import Questioner, Rollouts

QUESTION = 'Does this image agree with the following statement about it? "{sentence}" Please answer yes or no.'


def sentences(thought: str) -> list[str]:
    """The thought's sentences, in order: what full stops, semicolons, !, ? and line ends part, with a letter in it."""
    parts = (part.strip() for part in re.split(r"(?<=[.!?;])\s+|\n", thought))
    return [part for part in parts if re.search(r"[^\W\d_]", part)]


class ThoughtFaithfulReward:
    """Mean P(yes) over the thought's sentences, each asked for alone, in 0..1, higher is better.

    It does not apply to a rollout whose thought has no sentence: NaN there, and no failure; elsewhere NaN = no verdict on
    one of them. A policy can please it by announcing little, so that it belongs beside `thought-format` or
    `thought-length`. question: with `{sentence}` in it. max_sentences: of a longer thought the first ones. Sentences that
    say nothing of the picture ("let me think.") are asked for as well.
    """

    name = "thought-faithful"

    def __init__(self, questioner: Questioner, question: str = QUESTION, max_sentences: int = 8):
        if max_sentences < 1:
            raise UserError(f"thought-faithful: max_sentences={max_sentences}: at least 1.")
        self.questioner, self.max_sentences = held_to(Questioner, questioner), max_sentences
        self.question = check_template("thought-faithful: question", question, "{sentence}")

    def applies(self, rollouts: Rollouts) -> Tensor:
        return torch.tensor([bool(asked) for asked in self._questions(rollouts)])

    def __call__(self, rollouts: Rollouts) -> Tensor:
        # The mean of no answers is NaN.
        answers = p_yes(self.questioner, pictures_of(rollouts), self._questions(rollouts))
        return torch.stack([given.mean() for given in answers])

    def _questions(self, rollouts: Rollouts) -> list[list[str]]:
        return [
            [worded(self.question, said, "{sentence}") for said in sentences(thought)[: self.max_sentences]]
            for thought in thoughts_of(rollouts)
        ]


class LabThoughtFaithfulReward:
    """Share of the thought's claims that the lab's exact detector finds true, in 0..1, higher is better.

    A claim is a thing, the place it is said to stand at, or the background. It does not apply to a thought without claims:
    NaN there, and no failure; elsewhere it always has a verdict.
    """

    name = "lab-thought-faithful"

    def __init__(self) -> None:
        self.detector = LabDetector()

    def applies(self, rollouts: Rollouts) -> Tensor:
        return torch.tensor([any(claims(thought)) for thought in thoughts_of(rollouts)])

    def __call__(self, rollouts: Rollouts) -> Tensor:
        values = []
        for thought, found in zip(thoughts_of(rollouts), self.detector.look(pictures_of(rollouts)), strict=True):
            held = [claim_holds(claim, found) for claim in claims(thought)]
            values.append(sum(held) / len(held) if held else math.nan)
        return torch.tensor(values, dtype=torch.float32)
