"""The work of a decode step besides its matrix products, in plain torch."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from thinkdraw.policies.sampling.cache import CacheShape, KVCache

Map = Callable[[Tensor], Tensor]
Norm = Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor]]


class Operations:
    """RMSNorm, gate and KV cache of a decoder that multiplies in `dtype`.

    `speed.operations` chooses between these and faster ones with the same results up to rounding.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self.device, self.dtype = device, dtype
        # On a CPU, torch's attention of a single query takes a quarter longer in bf16.
        self.cache_dtype = torch.float32 if device.type == "cpu" else dtype

    def new_cache(self, shape: CacheShape, rows: int, capacity: int) -> KVCache:
        """Make an empty KV cache.

        It may reuse the memory of the last one, which must not be used any more.
        """
        return KVCache.blank(shape, rows, capacity, self.cache_dtype, self.device)

    def rms_norm(self, module: Any, dtype: torch.dtype) -> Norm:
        """Make the function that adds to the residual stream and normalises the sum.

        It maps (residual stream, change) to (stream + change, its RMSNorm in `dtype`), with the module's weight.
        """
        weight, eps = module.weight, module.variance_epsilon

        def norm(stream: Tensor, change: Tensor | None) -> tuple[Tensor, Tensor]:
            stream = stream if change is None else stream + change
            return stream, F.rms_norm(stream, weight.shape, weight, eps).to(dtype)

        return norm

    def gate(self, activation: Map) -> Map:
        """Make SwiGLU's gate of the MLP: (R, 2 I) to (R, I).

        It computes activation(first half) · second half.
        """

        def apply(gate_and_up: Tensor) -> Tensor:
            gate, up = gate_and_up.chunk(2, dim=-1)
            return activation(gate) * up

        return apply

    def close(self) -> None:
        """End sampling: no cache is used any more, and memory may be freed."""
