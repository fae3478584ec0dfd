"""Best-of-N: draw every prompt N times and keep the picture that a reward likes best. The row that training must beat."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from thinkdraw.rewards.user_rewards import as_reward
from thinkdraw.types import Drawer, Prompt, Reward, Rollouts, Sampling


class BestOfN:
    """Samples like the policy, and draws `n` times as much.

    The i-th candidate of a picture has its seed + i, so that the first is the picture the policy alone would draw. Where no
    candidate has a verdict the first is kept. Ties go to the earlier one.
    """

    def __init__(self, policy: Drawer, reward: Reward | Callable[[Rollouts], Tensor], n: int) -> None:
        if n < 1:
            raise ValueError(f"n={n}: at least one picture is drawn. Use 4, as the papers do.")
        self.policy, self.reward, self.n = policy, as_reward(reward), n

    @property
    def revision(self) -> str:
        return f"{self.policy.revision}-best-of-{self.n}-{self.reward.name}"

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling, *, seeds: Sequence[int] | Tensor) -> Rollouts:
        """One rollout per prompt, with its picture. seeds: (P,)."""
        first = torch.as_tensor(seeds, dtype=torch.int64)
        candidates = Rollouts.join([self.policy.sample(prompts, sampling, seeds=first + i) for i in range(self.n)])
        rewards = self.reward(candidates).rewards.reshape(self.n, len(prompts))
        best = rewards.nan_to_num(-torch.inf).argmax(0)
        return candidates.select(best * len(prompts) + torch.arange(len(prompts)))
