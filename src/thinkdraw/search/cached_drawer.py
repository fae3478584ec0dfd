"""A policy whose pictures are drawn once and then remembered.

Several rewards can then choose among the same candidates for the price of one sampling.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from thinkdraw.types import Drawer, Prompt, Rollouts, Sampling


class CachedDrawer:
    """Remembers each call of `sample`, and answers a repeated call from memory.

    This is right because a rollout depends on its prompt, sampling settings and seed alone.
    Memory: 16 pictures for each of the lab's 576 prompts take 120 MB.
    """

    def __init__(self, policy: Drawer) -> None:
        self.policy = policy
        self._rollouts_by_call: dict[tuple[object, ...], Rollouts] = {}

    @property
    def revision(self) -> str:
        """The policy's revision."""
        return self.policy.revision

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling, *, seeds: Sequence[int] | Tensor) -> Rollouts:
        """Sample one rollout per prompt, with its picture. seeds: (P,)."""
        numbers = torch.as_tensor(seeds, dtype=torch.int64).tolist()
        key = (self.policy.revision, sampling.model_dump_json(), tuple((p.id, p.text) for p in prompts), *numbers)
        if key not in self._rollouts_by_call:
            self._rollouts_by_call[key] = self.policy.sample(prompts, sampling, seeds=numbers)
        return self._rollouts_by_call[key]
