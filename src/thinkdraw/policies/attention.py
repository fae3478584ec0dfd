"""Attention on a CPU where torch's fused kernel is slow: learning from short sequences."""

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "thinkdraw_sdpa"
SHORT = 512  # tokens; beyond, the (L, L) scores of plain products cost more memory than they save time


def attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs
) -> tuple[Tensor, Tensor | None]:
    """transformers' SDPA, but on a CPU, where a gradient is wanted of a short sequence, plain products take its place: the
    fused kernel's backward pass is several times slower.

    query: (B, H, L, D). key, value: (B, Hkv, S, D). Returns (B, L, H, D) and None.
    """
    learns = query.device.type == "cpu" and torch.is_grad_enabled() and query.requires_grad
    if learns and query.shape[2] == key.shape[2] <= SHORT:
        return _plain(module, query, key, value, attention_mask, kwargs.get("scaling")), None
    return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)


def _plain(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float | None
) -> Tensor:
    groups = query.shape[1] // key.shape[1]
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    scores = (query @ key.transpose(2, 3)).float() * (query.shape[3] ** -0.5 if scaling is None else scaling)
    if mask is None:
        mask = torch.ones(scores.shape[2:], dtype=torch.bool, device=scores.device).tril()
    scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min) if mask.dtype == torch.bool else scores + mask
    return (scores.softmax(-1).to(value.dtype) @ value).transpose(1, 2).contiguous()


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, sdpa_mask)
