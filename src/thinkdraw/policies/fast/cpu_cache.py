"""The KV cache that the C++ attention reads and writes; its rows may share a prefix, which is then read once for all."""

import torch
from torch import Tensor

from thinkdraw.policies.fast.buffer_pool import BufferPool
from thinkdraw.policies.fast.cpu_kernels import Kernels
from thinkdraw.policies.sampling.cache import CacheShape, KVCache, Layers, Rotation


class CpuCache(KVCache):
    """Row r stands on the first prefix_lengths[r] columns of the shared prefix, (rows,) int64, where there is one.

    So its position p is in column p − prefix_lengths[r]. prefix: of each layer keys and values (heads, columns, D).
    """

    def __init__(self, layers: Layers, kernels: Kernels, pool: BufferPool) -> None:
        super().__init__(layers)
        self.kernels, self.pool = kernels, pool
        self.prefix: Layers | None = None
        self.prefix_lengths: Tensor | None = None

    @classmethod
    def of_pool(cls, pool: BufferPool, kernels: Kernels, shape: CacheShape, rows: int, capacity: int) -> "CpuCache":
        """Room for `capacity` tokens of each row, with anything in it: what is not visible is never read."""
        size = (shape.num_layers, rows, shape.heads, capacity, shape.width)
        keys, values = (pool.take(size, kernels.dtype) for _ in range(2))
        return cls(list(zip(keys, values)), kernels, pool)

    def part(self, begin: int, end: int) -> "CpuCache":
        return CpuCache([(keys[begin:end], values[begin:end]) for keys, values in self.layers], self.kernels, self.pool)

    def prefix_cache(self, row: int, length: int) -> "CpuCache":
        keys = self.layers[0][0]
        shape = CacheShape(len(self.layers), keys.shape[1], keys.shape[3])
        return CpuCache.of_pool(self.pool, self.kernels, shape, 1, length)

    def share_prefix(self, prefix: KVCache, row: int, lengths: Tensor) -> None:
        self.prefix = [(keys[0], values[0]) for keys, values in prefix.layers]
        self.prefix_lengths = torch.cat([torch.zeros(row, dtype=torch.int64), lengths])

    def begin_pass(self, positions: Tensor, columns: int) -> None:
        begins = positions[:, 0].contiguous()
        self._begins = begins if self.prefix_lengths is None else begins - self.prefix_lengths[: len(begins)]
        first, last = map(int, self._begins.aminmax())
        if first < 0 or last + positions.shape[1] > self.capacity or len(begins) > len(self.layers[0][0]):
            raise IndexError(f"no room for columns {first} to {last}")  # the kernels write wherever they are told

    def attend(self, layer: int, heads: Tensor, rotation: Rotation, scale: float) -> Tensor:
        shared = None
        if self.prefix is not None and self.prefix_lengths is not None:
            shared = (*self.prefix[layer], self.prefix_lengths)
        return self.kernels.attend(heads, rotation, *self.layers[layer], self._begins, shared, scale)
