"""A reward in five lines: how bright a picture is, 0..1."""

from torch import Tensor

from thinkdraw.types import Rollouts


class Brightness:
    name = "brightness"

    def __call__(self, rollouts: Rollouts) -> Tensor:
        assert rollouts.pictures is not None
        return rollouts.pictures.float().mean((1, 2, 3)).cpu() / 255
