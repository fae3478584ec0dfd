"""The work of a decode step besides its matrix products, on a CPU by C++ kernels."""

from typing import Any

import torch
from torch import Tensor

from thinkdraw.policies.fast.buffer_pool import BufferPool
from thinkdraw.policies.fast.cpu_cache import CpuCache
from thinkdraw.policies.fast.cpu_kernels import Kernels, is_silu, kernels_for
from thinkdraw.policies.sampling.cache import CacheShape
from thinkdraw.policies.sampling.operations import Map, Norm, Operations

_SPARE: list[BufferPool] = []  # the pool that the last session returned; at most one


class CpuOperations(Operations):
    """The `Operations` of a CPU with kernels."""

    def __init__(self, kernels: Kernels) -> None:
        super().__init__(torch.device("cpu"), kernels.dtype)
        self.kernels, self.cache_dtype = kernels, kernels.dtype
        self.pool = _SPARE.pop() if _SPARE else BufferPool()  # not shared: another thread may sample meanwhile

    def new_cache(self, shape: CacheShape, rows: int, capacity: int) -> CpuCache:
        """Make an empty KV cache in the pool's memory."""
        self.pool.reset()
        return CpuCache.of_pool(self.pool, self.kernels, shape, rows, capacity)

    def rms_norm(self, module: Any, dtype: torch.dtype) -> Norm:
        """Make the norm; torch's where the kernels do not know the weight's dtype."""
        weight, eps, kernels = module.weight, module.variance_epsilon, self.kernels
        if weight.dtype not in (torch.float32, kernels.dtype):
            return super().rms_norm(module, dtype)
        return lambda stream, change: kernels.norm(stream, change, weight, eps, dtype)

    def gate(self, activation: Map) -> Map:
        """Make the gate; torch's for another activation than SiLU."""
        if not is_silu(activation):
            return super().gate(activation)

        def apply(gate_and_up: Tensor) -> Tensor:
            return self.kernels.gate(*gate_and_up.chunk(2, dim=-1))

        return apply

    def close(self) -> None:
        """Give the pool to the next session."""
        self.pool.trim()
        _SPARE[:] = [self.pool]


def operations_for(device: torch.device, dtype: torch.dtype, head_width: int) -> CpuOperations | None:
    """Return the operations, or None where there are no kernels: see `kernels_for`."""
    kernels = kernels_for(device, dtype, head_width)
    return None if kernels is None else CpuOperations(kernels)
