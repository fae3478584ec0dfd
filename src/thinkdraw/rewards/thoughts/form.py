"""The form of a thought, whatever the picture shows: that it is there and complete, and how long it is. No judge needed."""

import re

import torch
from torch import Tensor

from thinkdraw.errors import UserError
from thinkdraw.rewards.base import BaseReward
from thinkdraw.rewards.judging import thoughts_of
from thinkdraw.types import Rollouts, Verdicts


def has_thoughts(rollouts: Rollouts) -> Tensor:
    """(B,) bool: whether the policy was to think before it drew."""
    return torch.full((len(rollouts),), rollouts.sampling.thought != "off")


def _where_it_thinks(values: Tensor, rollouts: Rollouts) -> Verdicts:
    thinks = has_thoughts(rollouts)
    return Verdicts.of(values.masked_fill(~thinks, torch.nan), thinks)


class ThoughtFormatReward(BaseReward):
    """1 for a thought that is there, ended by itself and has the asked form, else 0. Never NaN where the policy thinks.

    It does not apply to rollouts without thoughts (`off`): NaN there, and no failure.
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
        formed = torch.tensor([bool(t.strip() and self.pattern.fullmatch(t)) for t in thoughts_of(rollouts)])
        return _where_it_thinks((formed & ~rollouts.text_was_cut().cpu()).float(), rollouts)


class ThoughtLengthReward(BaseReward):
    """1 for a thought of `low` to `high` words, falling to 0 over `fade` words on both sides. Never NaN where the policy thinks.

    It does not apply to rollouts without thoughts (`off`): NaN there, and no failure. Words are what blanks part. The
    linear edge is that of DAPO's soft punishment of overlong replies (arXiv 2503.14476).
    """

    name = "thought-length"

    def __init__(self, low: int = 5, high: int = 50, fade: int = 5):
        if not 0 <= low <= high or fade < 1:
            raise UserError(f"thought-length: low={low}, high={high}, fade={fade}: 0 ≤ low ≤ high and fade ≥ 1.")
        self.low, self.high, self.fade = low, high, fade

    def __call__(self, rollouts: Rollouts, /) -> Verdicts:
        words = torch.tensor([float(len(thought.split())) for thought in thoughts_of(rollouts)])
        outside = (self.low - words).clamp(min=0) + (words - self.high).clamp(min=0)
        return _where_it_thinks((1 - outside / self.fade).clamp(min=0), rollouts)
