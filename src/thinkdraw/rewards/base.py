"""The base class of the shipped rewards: it lists a reward's judges."""

from collections.abc import Mapping
from typing import ClassVar

from thinkdraw.rewards.judges_of import judges_of
from thinkdraw.types import Prompt, Rollouts, Verdicts


class BaseReward:
    """A `types.Reward` whose judges are attributes; it gives one number per rollout.

    asks: names of the attributes that hold judges, such as ("detector",). A subclass sets `asks` and `name` and
    defines `__call__`.
    """

    asks: ClassVar[tuple[str, ...]] = ()
    name: str = ""
    weights: Mapping[str, float] | None = None

    @property
    def revision(self) -> str | None:
        return None

    @property
    def judges(self) -> Mapping[str, object]:
        return {role: judge for role in sorted(self.asks) if (judge := getattr(self, role)) is not None}

    @property
    def elsewhere(self) -> bool:
        return any(judge.elsewhere for _, judge in judges_of(self))

    def lacks(self, prompt: Prompt, /) -> str:
        """Name what a prompt lacks for this reward to judge its pictures; "" for nothing."""
        return ""

    def __call__(self, rollouts: Rollouts, /) -> Verdicts:
        raise NotImplementedError
