"""Code that only saves time or memory: delete this folder and all else runs.

Only `policies/speed.py` imports it.
"""

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
