"""Memory for KV caches on a CPU, reused by the next cache and the next phase.

The system hands out fresh memory page by page and sets it to zero, which takes 3 to 12 % of the sampler's time. On
a GPU, torch caches memory itself.
"""

import math

import numpy as np
import torch
from torch import Tensor

MAX_IDLE_BYTES = 1e9  # held between two phases, when learning may need memory
MAX_OVERSIZE = 2  # how many times larger than its tensor a buffer may be


class BufferPool:
    """Lends memory: a buffer belongs to its taker until `reset`."""

    def __init__(self) -> None:
        self._idle: list[Tensor] = []
        self._taken: list[Tensor] = []

    def reset(self) -> None:
        """Take all buffers back; none of them may be used any more.

        Buffers that were not taken since the last reset go back to the system.
        """
        self._idle, self._taken = sorted(self._taken, key=len), []

    def trim(self) -> None:
        """Reset, and keep nothing if the buffers exceed MAX_IDLE_BYTES."""
        self.reset()
        if sum(buffer.nbytes for buffer in self._idle) > MAX_IDLE_BYTES:
            self._idle = []

    def take(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Lend a tensor of uninitialised memory."""
        size = math.prod(shape) * dtype.itemsize
        buffer = self._buffer(size)
        self._taken.append(buffer)
        return buffer[:size].view(dtype).view(shape)

    def _buffer(self, size: int) -> Tensor:
        """Find an idle buffer of about this size, or allocate one."""
        for index, buffer in enumerate(self._idle):
            if size <= len(buffer) <= MAX_OVERSIZE * size:
                return self._idle.pop(index)
        # A larger buffer is needed from now on, so the largest of those too small is given back for it.
        too_small = [index for index, buffer in enumerate(self._idle) if len(buffer) < size]
        if too_small:
            self._idle.pop(too_small[-1])
        with torch.inference_mode(False):  # a tensor made in inference mode could only be written to there
            # numpy's allocator, unlike torch's, asks for huge pages instead of tens of thousands of 4 kB.
            return torch.from_numpy(np.empty(size, dtype=np.uint8))
