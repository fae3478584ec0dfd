"""A CPU's memory for KV caches, which the next cache, and the next rollout phase, use again.

A system hands out fresh memory page by page, zeroed: that takes 3 to 12 % of the sampler's time. A GPU's torch keeps itself.
"""

import math

import numpy as np
import torch
from torch import Tensor

KEPT_BYTES = 1e9  # between two phases, when learning may need it
WASTE = 2  # how many times larger than asked for a buffer may be


class BufferPool:
    """What is taken belongs to the taker until `reset`."""

    def __init__(self) -> None:
        self._idle: list[Tensor] = []
        self._taken: list[Tensor] = []

    def reset(self) -> None:
        """Nothing that was taken is used any more. What was not taken since the last reset goes back to the system."""
        self._idle, self._taken = sorted(self._taken, key=len), []

    def trim(self) -> None:
        """Reset, and keep nothing where it is more than KEPT_BYTES."""
        self.reset()
        if sum(buffer.nbytes for buffer in self._idle) > KEPT_BYTES:
            self._idle = []

    def take(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """A tensor with anything in it."""
        size = math.prod(shape) * dtype.itemsize
        buffer = self._buffer(size)
        self._taken.append(buffer)
        return buffer[:size].view(dtype).view(shape)

    def _buffer(self, size: int) -> Tensor:
        for place, buffer in enumerate(self._idle):
            if size <= len(buffer) <= WASTE * size:
                return self._idle.pop(place)
        outgrown = [place for place, buffer in enumerate(self._idle) if len(buffer) < size]
        if outgrown:
            self._idle.pop(outgrown[-1])
        with torch.inference_mode(False):  # an inference tensor could only be written to in inference
            # numpy's, not torch's, asks the system for huge pages: it would be tens of thousands of 4 kB
            return torch.from_numpy(np.empty(size, dtype=np.uint8))
