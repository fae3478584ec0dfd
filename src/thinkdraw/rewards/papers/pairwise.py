"""Win rate within the group, by a judge that writes and compares two pictures."""

import itertools
import math
import re

import torch

from thinkdraw.errors import UserError
from thinkdraw.rewards.base import BaseReward
from thinkdraw.rewards.judging import (
    check_judge,
    check_template,
    fill_template,
    last_line_after,
    pictures_of,
    scores_from_replies,
)
from thinkdraw.types import Request, Rollouts, Verdicts, Writer

INSTRUCTION = """You are shown two images, the first and the second, that were generated for this text prompt: "{prompt}"

Which of the two fits the prompt better? Look at objects, numbers, attributes and relations first, at quality second.
Give your reasons briefly and end with one line: "Better: 1", "Better: 2" or "Better: tie"."""

_CHOICE = re.compile(r"(?:(?:image|picture)\s+)?(1|2)|(tie)", re.IGNORECASE)
_FIRST_WINS = {"1": 1.0, "2": 0.0, "tie": 0.5}


def first_wins(reply: str) -> float:
    """Parse which picture is better: 1 the first, 0 the second, 0.5 for a tie.

    NaN = no verdict. The verdict stands alone on its line after the last `Better:` (`last_line_after`): 1, 2, tie, or
    `Image 1` and the like.
    """
    choice = _CHOICE.fullmatch(last_line_after("Better", reply) or "")
    return _FIRST_WINS[(choice[1] or choice[2]).lower()] if choice else math.nan


class PairwiseReward(BaseReward):
    """Share of the comparisons within its group that a picture wins.

    It needs a writer, and groups of at least 2 rollouts; else UserError. 0..1, higher is better; a tie counts half.
    Every pair is shown in both orders, and its result is the mean of the two. So a judge that always prefers the
    first picture gives a tie. A pair with a missing verdict is left out; a picture with no pair left is NaN.
    It makes G(G − 1) requests per group of G. instruction: with `{prompt}` in it.
    The win rate is Pref-GRPO's (Wang et al. 2025, arXiv 2508.20751); the two orders are ours.
    """

    name = "pairwise"
    asks = ("writer",)

    def __init__(self, writer: Writer, instruction: str = INSTRUCTION):
        self.writer = check_judge(Writer, writer)
        self.instruction = check_template("pairwise: instruction", instruction)

    def __call__(self, rollouts: Rollouts, /) -> Verdicts:
        size = rollouts.group_size
        if size < 2:
            raise UserError(
                "pairwise compares rollouts of one prompt, and these are in groups of 1. Raise group_size, or use another "
                "reward."
            )
        pictures = pictures_of(rollouts).cpu().numpy()
        orders = list(itertools.permutations(range(size), 2))
        requests = [
            Request(fill_template(self.instruction, rollouts.prompts[g].text), (pictures[g + a], pictures[g + b]))
            for g in range(0, len(rollouts), size)
            for a, b in orders
        ]
        # wins[g, a, b]: how far a beat b when it was shown first; NaN on the diagonal and without a verdict
        wins = torch.full((len(rollouts) // size, size, size), math.nan)
        first, second = torch.tensor(orders).T
        wins[:, first, second] = scores_from_replies(self.writer, requests, first_wins).reshape(-1, len(orders))
        both_orders = (wins + 1 - wins.transpose(1, 2)) / 2  # a's mean over being shown first and second
        return Verdicts.of(both_orders.nanmean(2).flatten())
