"""Best-of-N: draw N pictures per prompt and return the best by a reward.

It costs no training, so it is the baseline that training must beat.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from thinkdraw.rewards.user_rewards import as_reward
from thinkdraw.types import Drawer, Prompt, Reward, Rollouts, Sampling


class BestOfN:
    """Samples like a policy, at N times the cost.

    The i-th candidate of a picture has its seed + i, so the first is the picture that the policy alone would draw.
    Ties go to the earlier candidate; without any verdict the first one is returned.
    """

    def __init__(self, policy: Drawer, reward: Reward | Callable[[Rollouts], Tensor], n: int) -> None:
        if n < 1:
            raise ValueError(f"n={n}: at least one picture must be drawn. Use 4, as the papers do.")
        self.policy, self.reward, self.n = policy, as_reward(reward), n

    @property
    def revision(self) -> str:
        """The policy's revision, with N and the reward's name."""
        return f"{self.policy.revision}-best-of-{self.n}-{self.reward.name}"

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling, *, seeds: Sequence[int] | Tensor) -> Rollouts:
        """Sample one rollout per prompt, with its picture. seeds: (P,)."""
        first = torch.as_tensor(seeds, dtype=torch.int64)
        candidates = Rollouts.join([self.policy.sample(prompts, sampling, seeds=first + i) for i in range(self.n)])
        rewards = self.reward(candidates).rewards.reshape(self.n, len(prompts))
        best = rewards.nan_to_num(-torch.inf).argmax(0)
        return candidates.select(best * len(prompts) + torch.arange(len(prompts)))
