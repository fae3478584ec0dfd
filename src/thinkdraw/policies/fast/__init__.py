"""What only makes things faster, or smaller: delete this folder and everything still runs. `policies/speed.py` is its door."""

from thinkdraw.policies.fast import (
    buffer_pool,
    channels_last,
    chunked_head,
    cpu_cache,
    cpu_kernels,
    cpu_operations,
    cuda_graphs,
    learning_layer,
    short_attention,
)

__all__ = ["buffer_pool", "channels_last", "chunked_head", "cpu_cache", "cpu_kernels", "cpu_operations", "cuda_graphs",
           "learning_layer", "short_attention"]  # fmt: skip
