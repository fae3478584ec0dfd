"""UnifiedReward's pointwise score: a judge that writes gives alignment and quality together one number from 1 to 5."""

import math
import re

from thinkdraw.rewards.base import BaseReward
from thinkdraw.rewards.judging import check_template, held_to, last_line_after, requests_about, written
from thinkdraw.types import Rollouts, Verdicts, Writer

INSTRUCTION = """You are shown an image and the text caption that it was generated from. Judge the image by two criteria:
1. Alignment with the Caption: are the objects, their attributes, numbers and relations those of the caption?
2. Overall Image Quality: is the image sharp, plausible, free of artefacts and pleasing?

Give one number from 1 (poor) to 5 (excellent) for both together, after the words 'Final Score:'.

Text Caption: [{prompt}]"""

_NUMBER = re.compile(r"(\d+(?:\.\d+)?)(?:\s*(?:/|out of)\s*5)?")


def final_score(reply: str) -> float:
    """The number after the last `Final Score:`, in 1..5, or NaN.

    It must stand alone on its line (`last_line_after`), where `/5` and `out of 5` are allowed. `10`, which the published
    pattern reads as 1, and `4 or 5`, which it reads as 4, are no verdicts.
    """
    number = _NUMBER.fullmatch(last_line_after("Final Score", reply) or "")
    score = float(number[1]) if number else math.nan
    return score if 1 <= score <= 5 else math.nan


class UnifiedRewardReward(BaseReward):
    """The writer's score of picture and prompt, raw, in 1..5, higher is better.

    NaN where it gave no reply or its reply no score by `final_score`; public code counts these as 0. instruction: with
    `{prompt}` in it; the default says in other words what the published one does, with its words for caption and score.
    Wang et al. 2025 (UnifiedReward, arXiv 2503.05236).
    """

    name = "unified-reward"
    asks = ("writer",)

    def __init__(self, writer: Writer, instruction: str = INSTRUCTION):
        self.writer = held_to(Writer, writer)
        self.instruction = check_template("unified-reward: instruction", instruction)

    def __call__(self, rollouts: Rollouts, /) -> Verdicts:
        return Verdicts.of(written(self.writer, requests_about(rollouts, self.instruction), final_score))
