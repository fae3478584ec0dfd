"""What the shipped rewards have in common: how they say what stands behind their verdicts."""

from collections.abc import Mapping
from typing import ClassVar

from thinkdraw.rewards.judges_behind import judges_behind
from thinkdraw.types import Rollouts, Verdicts


class BaseReward:
    """A `types.Reward` that is no sum of parts, and asks the judges that the attributes named in `asks` hold."""

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
        return any(judge.elsewhere for _, judge in judges_behind(self))

    def __call__(self, rollouts: Rollouts, /) -> Verdicts:
        raise NotImplementedError
