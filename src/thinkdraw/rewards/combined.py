"""Several rewards at once: their raw numbers for the objective that combines them, and a plain sum where one is asked for."""

from collections.abc import Mapping

import torch
from torch import Tensor

from thinkdraw.errors import UserError
from thinkdraw.rewards.judging import applies_to
from thinkdraw.types import Reward, Rollouts


class CombinedReward:
    """The sum of weight · value over the rewards that apply to a rollout, on whatever scale that gives; higher is better.

    NaN where a reward that applies, and has a weight, has no verdict; and where none applies. A reward of weight 0 is
    looked at and not counted. rewards: name → reward. weights: name → number, 1 where it is not named.
    `components` are the raw values, for the log and for `objectives.combine`, which balances them by `gdpo` or by declared
    ranges, given `component_applies` as its `applies`.
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
        self.name, self.rewards = name, dict(rewards)
        self.weights = {part: float(weights.get(part, 1.0)) for part in rewards}
        if not any(self.weights.values()):
            raise UserError(f"{name}: all weights are 0, so that every picture would be as good. Raise one.")
        self._judged: tuple[Rollouts | None, dict[str, Tensor]] = (None, {})

    def __call__(self, rollouts: Rollouts) -> Tensor:
        values, applies = self.components(rollouts), self.component_applies(rollouts)
        total = torch.zeros(len(rollouts))
        for part, weight in self.weights.items():
            if weight:
                total = total + torch.where(applies[part], weight * values[part], 0.0)
        return total.masked_fill(~self.applies(rollouts), torch.nan)

    def components(self, rollouts: Rollouts) -> dict[str, Tensor]:
        """Name → (B,) float32, raw, NaN where there is no verdict or nothing to judge. Free after the reward of these."""
        if self._judged[0] is not rollouts:
            values = {part: reward(rollouts).float().cpu() for part, reward in self.rewards.items()}
            self._judged = (rollouts, values)
        return dict(self._judged[1])

    def component_applies(self, rollouts: Rollouts) -> dict[str, Tensor]:
        """Name → (B,) bool: where a NaN of the component is a missing verdict, and not a prompt it has nothing to say of."""
        return {part: applies_to(reward, rollouts) for part, reward in self.rewards.items()}

    def applies(self, rollouts: Rollouts) -> Tensor:
        """(B,) bool: where at least one of the rewards that have a weight applies."""
        applies = self.component_applies(rollouts)
        return torch.stack([applies[part] for part, weight in self.weights.items() if weight]).any(0)
