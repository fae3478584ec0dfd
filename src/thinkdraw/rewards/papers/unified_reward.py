"""UnifiedReward's pointwise score: one number, 1 to 5, for alignment and quality."""

import math
import re

from thinkdraw.rewards.base import BaseReward
from thinkdraw.rewards.judging import (
    check_judge,
    check_template,
    last_line_after,
    picture_requests,
    scores_from_replies,
)
from thinkdraw.types import Rollouts, Verdicts, Writer

INSTRUCTION = """You are shown an image and the text caption that it was generated from. Judge the image by two criteria:
1. Alignment with the Caption: are the objects, their attributes, numbers and relations those of the caption?
2. Overall Image Quality: is the image sharp, plausible, free of artefacts and pleasing?

Give one number from 1 (poor) to 5 (excellent) for both together, after the words 'Final Score:'.

Text Caption: [{prompt}]"""

_NUMBER = re.compile(r"(\d+(?:\.\d+)?)(?:\s*(?:/|out of)\s*5)?")


def final_score(reply: str) -> float:
    """Parse the number after the last `Final Score:`, in 1..5, else NaN.

    It must stand alone on its line (`last_line_after`), where `/5` and `out of 5` are allowed. `10`, which the
    published pattern reads as 1, and `4 or 5`, which it reads as 4, are no verdicts.
    """
    number = _NUMBER.fullmatch(last_line_after("Final Score", reply) or "")
    score = float(number[1]) if number else math.nan
    return score if 1 <= score <= 5 else math.nan


class UnifiedRewardReward(BaseReward):
    """A writing judge's score from 1 to 5 for alignment and quality together.

    It needs a writer. The score is passed on as it is; higher is better. NaN where the writer gave no reply, or one
    without a score by `final_score`; public code counts these as 0.
    instruction: with `{prompt}` in it; the default says the same as the published one in other words, but for its
    words for caption and score. Wang et al. 2025 (UnifiedReward, arXiv 2503.05236).
    """

    name = "unified-reward"
    asks = ("writer",)

    def __init__(self, writer: Writer, instruction: str = INSTRUCTION):
        self.writer = check_judge(Writer, writer)
        self.instruction = check_template("unified-reward: instruction", instruction)

    def __call__(self, rollouts: Rollouts, /) -> Verdicts:
        return Verdicts.of(scores_from_replies(self.writer, picture_requests(rollouts, self.instruction), final_score))
