"""A reward in five lines: the brightness of a picture, 0..1."""

from torch import Tensor

from thinkdraw.types import Rollouts


class Brightness:
    """Rewards bright pictures."""

    name = "brightness"

    def __call__(self, rollouts: Rollouts) -> Tensor:
        """Return the mean brightness (B,) of each rollout's picture."""
        assert rollouts.pictures is not None
        return rollouts.pictures.float().mean((1, 2, 3)).cpu() / 255
