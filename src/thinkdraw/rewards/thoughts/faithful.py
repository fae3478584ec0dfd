"""Rewards for pictures that show what their own thought announced.

The thought may be right or wrong for the prompt; only the picture is compared with it.
"""

import math
import re

import torch

from thinkdraw.errors import UserError
from thinkdraw.judges.lab import LabDetector
from thinkdraw.lab.claims import claim_holds, claims
from thinkdraw.rewards.base import BaseReward
from thinkdraw.rewards.judging import check_judge, check_template, fill_template, p_yes, pictures_of, thoughts_of
from thinkdraw.types import Questioner, Rollouts, Verdicts

QUESTION = 'Does this image agree with the following statement about it? "{sentence}" Please answer yes or no.'


def sentences(thought: str) -> list[str]:
    """Split a thought into sentences at full stops, semicolons, !, ? and line ends.

    Pieces without a letter are left out.
    """
    pieces = (piece.strip() for piece in re.split(r"(?<=[.!?;])\s+|\n", thought))
    return [piece for piece in pieces if re.search(r"[^\W\d_]", piece)]


class ThoughtFaithfulReward(BaseReward):
    """Mean P(yes) that the picture shows what each sentence of its thought says.

    It needs a questioner, and a policy that thinks: it does not apply to a thought without a sentence. 0..1, higher
    is better. NaN where it does not apply, and where a sentence got no verdict.
    A policy can please it by announcing little, so use it beside `thought-format` or `thought-length`.
    question: with `{sentence}` in it. max_sentences: only so many first sentences are asked. Sentences that say
    nothing about the picture ("let me think.") are asked, too.
    """

    name = "thought-faithful"
    asks = ("questioner",)

    def __init__(self, questioner: Questioner, question: str = QUESTION, max_sentences: int = 8):
        if max_sentences < 1:
            raise UserError(f"thought-faithful: max_sentences={max_sentences} must be at least 1. Raise it.")
        self.questioner, self.max_sentences = check_judge(Questioner, questioner), max_sentences
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
    """Share of the thought's claims that the lab's exact detector finds true.

    It needs lab pictures, and a policy that thinks. A claim is a thing, the place where it is said to stand, or the
    background. 0..1, higher is better. It does not apply to a thought without claims: NaN there, and never elsewhere.
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
