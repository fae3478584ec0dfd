"""Attention for decoding one token at a time on a CPU, where torch's bf16 kernel is slower than its fp32 one."""

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "thinkdraw_sdpa"


def attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs
) -> tuple[Tensor, Tensor | None]:
    """transformers' SDPA, but a single query over fp32 keys and values on a CPU leaves autocast."""
    if query.shape[2] == 1 and query.device.type == "cpu" and key.dtype == torch.float32:
        with torch.autocast("cpu", enabled=False):
            return sdpa_attention_forward(module, query.float(), key, value, attention_mask, **kwargs)
    return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)


def cache_dtype(model_dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """What keys and values are kept in, so that no step has to cast all of them."""
    autocasts = device.type != "cpu" and torch.is_autocast_enabled(device.type)
    return torch.get_autocast_dtype(device.type) if autocasts else model_dtype


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, sdpa_mask)
