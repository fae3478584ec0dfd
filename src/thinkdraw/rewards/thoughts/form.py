"""Rewards for the form of a thought, whatever the picture shows."""

import re

import torch
from torch import Tensor

from thinkdraw.errors import UserError
from thinkdraw.rewards.base import BaseReward
from thinkdraw.rewards.judging import thoughts_of
from thinkdraw.types import Rollouts, Verdicts


def has_thoughts(rollouts: Rollouts) -> Tensor:
    """Tell for each rollout whether the policy was to think before it drew, (B,) bool."""
    return torch.full((len(rollouts),), rollouts.sampling.thought != "off")


def _only_with_thoughts(values: Tensor, rollouts: Rollouts) -> Verdicts:
    """Make verdicts that apply where the policy thinks, and are NaN elsewhere."""
    thinks = has_thoughts(rollouts)
    return Verdicts.of(values.masked_fill(~thinks, torch.nan), thinks)


class ThoughtFormatReward(BaseReward):
    """1 for a complete thought of the required form, else 0.

    It needs no judge. It does not apply to rollouts without thoughts (`thought=off`): NaN there, and never elsewhere.
    A thought is complete if it is not empty and the policy ended it itself.
    pattern: a regular expression that the whole thought must match, for instance `The picture shows .*`. The idea is
    DeepSeek-R1's format reward (arXiv 2501.12948).
    """

    name = "thought-format"

    def __init__(self, pattern: str | None = None):
        try:
            self.pattern = re.compile(pattern if pattern is not None else ".*", re.DOTALL)
        except re.error as error:
            raise UserError(
                f"thought-format: pattern={pattern!r} is no regular expression ({error}). Correct it."
            ) from error

    def __call__(self, rollouts: Rollouts, /) -> Verdicts:
        matches = torch.tensor([bool(t.strip() and self.pattern.fullmatch(t)) for t in thoughts_of(rollouts)])
        return _only_with_thoughts((matches & ~rollouts.text_was_cut().cpu()).float(), rollouts)


class ThoughtLengthReward(BaseReward):
    """1 for a thought of `low` to `high` words; less for shorter and longer ones.

    It needs no judge. It does not apply to rollouts without thoughts (`thought=off`): NaN there, and never elsewhere.
    low, high: words, separated by blanks. fade: over so many words the reward falls to 0 on both sides.
    The linear edge is that of DAPO's soft punishment of overlong replies (arXiv 2503.14476).
    """

    name = "thought-length"

    def __init__(self, low: int = 5, high: int = 50, fade: int = 5):
        if not 0 <= low <= high or fade < 1:
            raise UserError(
                f"thought-length: low={low}, high={high}, fade={fade} must satisfy 0 ≤ low ≤ high and fade ≥ 1. Correct them."
            )
        self.low, self.high, self.fade = low, high, fade

    def __call__(self, rollouts: Rollouts, /) -> Verdicts:
        words = torch.tensor([float(len(thought.split())) for thought in thoughts_of(rollouts)])
        outside = (self.low - words).clamp(min=0) + (words - self.high).clamp(min=0)
        return _only_with_thoughts((1 - outside / self.fade).clamp(min=0), rollouts)
