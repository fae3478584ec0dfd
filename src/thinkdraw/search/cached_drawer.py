"""A policy that draws the same pictures once, so that several rewards choose among the same candidates at the price of one."""

from collections.abc import Sequence

import torch
from torch import Tensor

from thinkdraw.types import Drawer, Prompt, Rollouts, Sampling


class CachedDrawer:
    """Answers a call of `sample` that it has answered before from memory: 576 prompts of the lab with 16 pictures each are 120 MB.

    Right because a rollout depends on prompt, sampling and seed alone.
    """

    def __init__(self, policy: Drawer) -> None:
        self.policy = policy
        self._drawn: dict[tuple[object, ...], Rollouts] = {}

    @property
    def revision(self) -> str:
        return self.policy.revision

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling, *, seeds: Sequence[int] | Tensor) -> Rollouts:
        """One rollout per prompt, with its picture. seeds: (P,)."""
        numbers = torch.as_tensor(seeds, dtype=torch.int64).tolist()
        key = (self.policy.revision, sampling.model_dump_json(), tuple((p.id, p.text) for p in prompts), *numbers)
        if key not in self._drawn:
            self._drawn[key] = self.policy.sample(prompts, sampling, seeds=numbers)
        return self._drawn[key]
