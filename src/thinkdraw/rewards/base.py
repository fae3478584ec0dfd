"""What the shipped rewards have in common: how they say what stands behind their verdicts."""

from collections.abc import Mapping
from typing import Any, ClassVar

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
    def judges(self) -> Mapping[str, Any]:
        return {role: judge for role in self.asks if (judge := getattr(self, role)) is not None}

    @property
    def elsewhere(self) -> bool:
        return any(getattr(judge, "elsewhere", False) is True for judge in self.judges.values())

    def __call__(self, rollouts: Rollouts, /) -> Verdicts:
        raise NotImplementedError
