"""Several rewards at once: each one's raw numbers, and their weighted sum."""

from collections import Counter
from collections.abc import Mapping

import torch

from thinkdraw.errors import UserError
from thinkdraw.rewards.base import BaseReward
from thinkdraw.rewards.user_rewards import as_reward
from thinkdraw.types import Prompt, Reward, Rollouts, Verdicts


class CombinedReward(BaseReward):
    """Weighted sum of several rewards; the raw number of each is kept beside it.

    It needs `rewards`, name → reward; `weights`, name → number, are 1 where not given. A rollout's sum is over the
    rewards that apply to it, in their own scales; higher is better. NaN where one of them has a weight and no
    verdict, or where none applies. A reward of weight 0 is computed and logged, and does not count.
    The verdicts' `parts` are the raw values. `objectives.combine` may balance these instead of taking the sum: by
    `gdpo` or by declared ranges, with `part_applies` as its `applies`.
    """

    def __init__(
        self, rewards: Mapping[str, Reward], weights: Mapping[str, float] | None = None, name: str = "combined"
    ):
        weights = weights or {}
        if not rewards:
            raise UserError(f"{name} has no rewards to combine. Name at least one.")
        if unknown := sorted(weights.keys() - rewards.keys()):
            raise UserError(
                f"{name}: there are weights for {', '.join(unknown)}, but the rewards are {', '.join(rewards)}. Correct the names."
            )
        self.name = name
        self.weights: Mapping[str, float] = {part: float(weights.get(part, 1.0)) for part in rewards}
        if not any(self.weights.values()):
            raise UserError(f"{name}: all weights are 0, so every picture would get the same reward. Raise one.")
        self.rewards = {part: as_reward(reward, part) for part, reward in rewards.items()}

    @property
    def judges(self) -> Mapping[str, object]:
        return {
            f"rewards.{part}.{role}".removesuffix("."): judge
            for part, reward in sorted(self.rewards.items())
            for role, judge in reward.judges.items()
        }

    def lacks(self, prompt: Prompt, /) -> str:
        """Name what all weighted rewards lack; one that can judge the prompt is enough."""
        rewards = [reward for part, reward in self.rewards.items() if self.weights[part]]
        lacking = [reward.lacks(prompt) if isinstance(reward, BaseReward) else "" for reward in rewards]
        return " and no ".join(dict.fromkeys(lacking)) if all(lacking) else ""

    def __call__(self, rollouts: Rollouts, /) -> Verdicts:
        verdicts = {part: reward(rollouts) for part, reward in self.rewards.items()}
        weights = {part: weight for part, weight in self.weights.items() if weight}
        total = torch.zeros(len(rollouts))
        for part, weight in weights.items():
            # `where` and not a product: NaN · 0 is NaN, so a part that does not apply would spoil the sum.
            total = total + torch.where(verdicts[part].applies, weight * verdicts[part].rewards, 0.0)
        applies = torch.stack([verdicts[part].applies for part in weights]).any(0)
        return Verdicts(
            total.masked_fill(~applies, torch.nan), applies, {part: v.rewards for part, v in verdicts.items()},
            {part: v.applies for part, v in verdicts.items()}, sum((v.notes for v in verdicts.values()), Counter()),
        )  # fmt: skip
