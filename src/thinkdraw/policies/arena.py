"""Memory for keys and values that the next prefill, and the next rollout phase, use again.

A system hands out fresh memory page by page, zeroed: on a CPU an eighth of the sampler's time. torch keeps a GPU's itself.
"""

import math

import numpy as np
import torch
from torch import Tensor

KEPT_BYTES = 1e9  # of memory between two phases, when learning may need it


class Arena:
    """What is taken belongs to the taker until `reset`."""

    def __init__(self) -> None:
        self._idle: list[Tensor] = []
        self._taken: list[Tensor] = []

    def reset(self) -> None:
        """Nothing that was taken is needed any more."""
        self._idle, self._taken = sorted(self._idle + self._taken, key=len), []

    def trim(self) -> None:
        """`reset`, and give back all where it is more than a phase may keep."""
        self.reset()
        if sum(buffer.nbytes for buffer in self._idle) > KEPT_BYTES:
            self._idle = []

    def take(self, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
        """A tensor with anything in it."""
        if device.type != "cpu" or dtype != torch.float32:
            return torch.empty(shape, dtype=dtype, device=device)
        size = math.prod(shape)
        place = next((i for i, buffer in enumerate(self._idle) if len(buffer) >= size), None)
        if place is None and self._idle:
            self._idle.pop()
        # numpy's, not torch's, asks the system for huge pages: there are tens of thousands of 4 kB
        buffer = torch.from_numpy(np.empty(size, dtype=np.float32)) if place is None else self._idle.pop(place)
        self._taken.append(buffer)
        return buffer[:size].view(shape)
