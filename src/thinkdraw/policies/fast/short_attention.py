"""Attention for learning from short sequences on a CPU, where torch's is slow."""

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from thinkdraw.runtime.device import matmul_dtype

NAME = "thinkdraw_sdpa"
SHORT = 512  # tokens; for longer ones, plain products' (L, L) scores cost more memory than the time is worth


def attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs
) -> tuple[Tensor, Tensor | None]:
    """Attend by plain products where torch's fused kernel is slow, else by SDPA.

    That is on a CPU, for short sequences, where a gradient is needed: there the fused kernel's backward pass is
    several times slower. In bf16 passes without a gradient do as those with one, so that a reference rounds as its
    policy does and their log-ratio is 0 while they are the same.
    query: (B, H, L, D). key, value: (B, Hkv, S, D). Returns (B, L, H, D) and None.
    """
    learns = torch.is_grad_enabled() and query.requires_grad
    rounds = matmul_dtype(query.device, query.dtype) != torch.float32
    if query.device.type == "cpu" and (learns or rounds) and query.shape[2] == key.shape[2] <= SHORT:
        return _plain(query, key, value, attention_mask, kwargs.get("scaling")), None
    return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)


def _plain(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float | None) -> Tensor:
    """Attend by matrix products and a softmax."""
    groups, (rows, heads, length, width) = query.shape[1] // key.shape[1], query.shape
    dtype = matmul_dtype(query.device, query.dtype)
    key, value = (repeat_kv(states.to(dtype), groups).flatten(0, 1) for states in (key, value))
    lowest = torch.finfo(torch.bfloat16).min  # finite in bf16 and fp32: a row that is all -inf would give NaN
    if mask is None:
        mask = torch.ones(length, key.shape[1], dtype=torch.bool, device=query.device).tril()
    if mask.dtype == torch.bool:
        mask = torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, lowest)
    else:
        mask = mask.clamp(min=lowest).to(dtype)
    if mask.dim() > 2:
        mask = mask.expand(rows, heads, -1, -1).flatten(0, 1)
    scale = width**-0.5 if scaling is None else scaling
    # Each pass over the (L, L) scores takes time, so one call computes products, scale and mask. Autocast is off, because
    # it would compute the softmax on fp32 copies.
    with torch.autocast(query.device.type, enabled=False):
        scores = torch.baddbmm(mask, query.to(dtype).flatten(0, 1), key.transpose(1, 2), alpha=scale)
        attended = scores.softmax(-1) @ value
    return attended.unflatten(0, (rows, heads)).transpose(1, 2).contiguous()


def use_short_attention(model: PreTrainedModel) -> None:
    """Let the language model of a Janus attend by `attend`."""
    model.set_attn_implementation({"text_config": NAME})


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, sdpa_mask)
