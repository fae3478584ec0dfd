"""The KV cache of the C++ attention.

Its rows may share a prefix, which is then stored and read once for all.
"""

import torch
from torch import Tensor

from thinkdraw.policies.fast.buffer_pool import BufferPool
from thinkdraw.policies.fast.cpu_kernels import Kernels
from thinkdraw.policies.sampling.cache import CacheShape, KVCache, Layers, Rotation


class CpuCache(KVCache):
    """A KV cache whose rows may stand on a shared prefix.

    Row r sees the first prefix_lengths[r] columns of the prefix, (rows,) int64. So its position p is in column p −
    prefix_lengths[r] of its own.
    prefix: keys and values (heads, columns, D) of each layer.
    """

    def __init__(self, layers: Layers, kernels: Kernels, pool: BufferPool) -> None:
        super().__init__(layers)
        self.kernels, self.pool = kernels, pool
        self.prefix: Layers | None = None
        self.prefix_lengths: Tensor | None = None

    @classmethod
    def of_pool(cls, pool: BufferPool, kernels: Kernels, shape: CacheShape, rows: int, capacity: int) -> "CpuCache":
        """Take memory for `capacity` tokens of each row from a pool.

        It is uninitialised: the kernels never read what is not visible.
        """
        size = (shape.num_layers, rows, shape.heads, capacity, shape.width)
        keys, values = (pool.take(size, kernels.dtype) for _ in range(2))
        return cls(list(zip(keys, values)), kernels, pool)

    def part(self, begin: int, end: int) -> "CpuCache":
        """Return rows begin .. end − 1, in the same memory."""
        return CpuCache([(keys[begin:end], values[begin:end]) for keys, values in self.layers], self.kernels, self.pool)

    def prefix_cache(self, row: int, length: int) -> "CpuCache":
        """Make a cache of one row, to prefill the shared prefix."""
        keys = self.layers[0][0]
        shape = CacheShape(len(self.layers), keys.shape[1], keys.shape[3])
        return CpuCache.of_pool(self.pool, self.kernels, shape, 1, length)

    def share_prefix(self, prefix: KVCache, row: int, lengths: Tensor) -> None:
        """Let each row from `row` on begin with the shared prefix, without a copy."""
        self.prefix = [(keys[0], values[0]) for keys, values in prefix.layers]
        self.prefix_lengths = torch.cat([torch.zeros(row, dtype=torch.int64), lengths])

    def begin_pass(self, positions: Tensor, columns: int) -> None:
        """Begin a pass over new tokens; see `KVCache.begin_pass`.

        Raises IndexError for a column outside of the cache.
        """
        begins = positions[:, 0].contiguous()
        self._begins = begins if self.prefix_lengths is None else begins - self.prefix_lengths[: len(begins)]
        first, last = map(int, self._begins.aminmax())
        if first < 0 or last + positions.shape[1] > self.capacity or len(begins) > len(self.layers[0][0]):
            # The kernels do not check where they write.
            raise IndexError(f"columns {first} to {last} are outside of the cache")

    def attend(self, layer: int, heads: Tensor, rotation: Rotation, scale: float) -> Tensor:
        """Cache the pass's keys and values, and attend; see `KVCache.attend`."""
        shared = None
        if self.prefix is not None and self.prefix_lengths is not None:
            shared = (*self.prefix[layer], self.prefix_lengths)
        return self.kernels.attend(heads, rotation, *self.layers[layer], self._begins, shared, scale)
