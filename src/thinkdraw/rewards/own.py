"""A user's own reward: any function or object that makes a number of each rollout, as the declared `Reward`.

This is the one place that asks an object what it has; everything else reads what `types.Reward` declares.
"""

from collections.abc import Mapping
from typing import Any

import torch

from thinkdraw.rewards.base import BaseReward
from thinkdraw.types import Reward, Rollouts, Verdicts


def as_reward(thing: Any, name: str = "") -> Reward:
    """The reward itself where it is one of ours; anything else that can be called with rollouts, wrapped.

    name: where the thing has none. Raises TypeError for what cannot be called.
    """
    if isinstance(thing, BaseReward):
        return thing
    if not callable(thing):
        raise TypeError(f"{type(thing).__name__} cannot be called with rollouts, so it is no reward.")
    return OwnReward(thing, name)


class OwnReward(BaseReward):
    """call: gives (B,) numbers, a tensor or a sequence, NaN = no verdict; or `Verdicts`.

    It may have, besides: `name`; `weights`, `revision`, `elsewhere` as in `types.Reward`; `components(rollouts)` and
    `component_applies(rollouts)`, part → (B,); `applies(rollouts)`, (B,) bool. Judges are found among its attributes.
    """

    def __init__(self, call: Any, name: str = "") -> None:
        self.call = call
        self.name = str(getattr(call, "name", "") or name or getattr(call, "__name__", type(call).__name__))
        self.weights: Mapping[str, float] | None = getattr(call, "weights", None)

    @property
    def revision(self) -> str | None:
        said = getattr(self.call, "revision", None)
        return said if isinstance(said, str) and said else None

    @property
    def judges(self) -> Mapping[str, Any]:
        return dict(sorted(getattr(self.call, "__dict__", {}).items()))

    @property
    def elsewhere(self) -> bool:
        return getattr(self.call, "elsewhere", False) is True or super().elsewhere

    def __call__(self, rollouts: Rollouts) -> Verdicts:
        said = self.call(rollouts)
        if isinstance(said, Verdicts):
            return said
        rewards = torch.as_tensor(said, dtype=torch.float32)
        return Verdicts.of(
            rewards, self._ask("applies", rollouts), self._ask("components", rollouts),
            self._ask("component_applies", rollouts),
        )  # fmt: skip

    def _ask(self, method: str, rollouts: Rollouts) -> Any:
        ask = getattr(self.call, method, None)
        return ask(rollouts) if callable(ask) else None
