"""The VQ decoder with feature maps in the memory order that convolutions prefer."""

from typing import Any

import torch
from torch import Tensor, nn

SMALL_MAP = 16 * 16  # pixels


def decode_latents(decoder: nn.Module, latents: Tensor) -> Tensor:
    """Run the VQ decoder on latents (B, D, h, w)."""
    levels: Any = decoder.up
    hooks = [level.block[0].register_forward_pre_hook(_reorder) for level in levels]
    try:
        return decoder(*_reorder(None, (latents,)))
    finally:
        for hook in hooks:
            hook.remove()


def _reorder(module: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Change a module's input to channels last, before the module runs.

    Small bf16 maps on a CPU become channels first: torch's group norm would take ten times as long on them.
    """
    maps = inputs[0]
    is_small = maps.shape[2:].numel() <= SMALL_MAP
    channels_first = maps.device.type == "cpu" and maps.dtype == torch.bfloat16 and is_small
    order = torch.contiguous_format if channels_first else torch.channels_last
    return (maps.contiguous(memory_format=order), *inputs[1:])
