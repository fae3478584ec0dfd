"""Several rewards at once: their raw numbers for the objective that combines them, and a plain sum where one is asked for."""

from collections import Counter
from collections.abc import Mapping

import torch

from thinkdraw.errors import UserError
from thinkdraw.rewards.base import BaseReward
from thinkdraw.rewards.user_rewards import as_reward
from thinkdraw.types import Reward, Rollouts, Verdicts


class CombinedReward(BaseReward):
    """The sum of weight · value over the rewards that apply to a rollout, on whatever scale that gives; higher is better.

    NaN where a reward that applies, and has a weight, has no verdict; and where none applies. A reward of weight 0 is
    looked at and not counted. rewards: name → reward. weights: name → number, 1 where it is not named.
    The verdicts' `parts` are the raw values, for the log and for `objectives.combine`, which balances them by `gdpo` or by
    declared ranges, given `part_applies` as its `applies`.
    """

    def __init__(
        self, rewards: Mapping[str, Reward], weights: Mapping[str, float] | None = None, name: str = "combined"
    ):
        weights = weights or {}
        if not rewards:
            raise UserError(f"{name} has no rewards to combine. Name at least one.")
        if unknown := sorted(weights.keys() - rewards.keys()):
            raise UserError(
                f"{name}: weights of {', '.join(unknown)}, the rewards are {', '.join(rewards)}. Correct them."
            )
        self.name = name
        self.weights: Mapping[str, float] = {part: float(weights.get(part, 1.0)) for part in rewards}
        if not any(self.weights.values()):
            raise UserError(f"{name}: all weights are 0, so that every picture would be as good. Raise one.")
        self.rewards = {part: as_reward(reward, part) for part, reward in rewards.items()}

    @property
    def judges(self) -> Mapping[str, object]:
        return {
            f"rewards.{part}.{role}".removesuffix("."): judge
            for part, reward in sorted(self.rewards.items())
            for role, judge in reward.judges.items()
        }

    def __call__(self, rollouts: Rollouts, /) -> Verdicts:
        verdicts = {part: reward(rollouts) for part, reward in self.rewards.items()}
        weighed = {part: weight for part, weight in self.weights.items() if weight}
        total = torch.zeros(len(rollouts))
        for part, weight in weighed.items():
            total = total + torch.where(verdicts[part].applies, weight * verdicts[part].rewards, 0.0)
        applies = torch.stack([verdicts[part].applies for part in weighed]).any(0)
        return Verdicts(
            total.masked_fill(~applies, torch.nan), applies, {part: v.rewards for part, v in verdicts.items()},
            {part: v.applies for part, v in verdicts.items()}, sum((v.notes for v in verdicts.values()), Counter()),
        )  # fmt: skip
