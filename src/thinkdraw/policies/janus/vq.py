"""Pictures ↔ image tokens through Janus's VQ model, with the L2-normalised codebook that its decoder uses.

`JanusVQVAE.encode` leaves the normalisation out, so its tokens are not the ones the reference implementation would give
(deepseek-ai/Janus, `vq_model.py`: `l2_norm=True`); everything here goes through `nearest_codes` instead.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import JanusVQVAE

SMALL_MAP = 16 * 16  # pixels


def latents(vqmodel: JanusVQVAE, pixels: Tensor) -> Tensor:
    """Unit-length encoder outputs (B, D, h, w) of model pixels (B, 3, H, W) in [-1, 1]."""
    return F.normalize(vqmodel.quant_conv(vqmodel.encoder(pixels)).float(), dim=1)


def nearest_codes(vqmodel: JanusVQVAE, unit_latents: Tensor) -> Tensor:
    """Index of the nearest code by cosine, (B, h·w) int64 in raster order."""
    codebook = F.normalize(vqmodel.quantize.embedding.weight.float(), dim=-1)
    flat = unit_latents.flatten(2).transpose(1, 2)
    return (flat @ codebook.T).argmax(dim=-1)


@torch.no_grad()
def encode(vqmodel: JanusVQVAE, pixels: Tensor, chunk: int = 64) -> Tensor:
    """Image tokens (B, N) int64 of model pixels (B, 3, H, W)."""
    return torch.cat([nearest_codes(vqmodel, latents(vqmodel, part)) for part in pixels.split(chunk)])


@torch.no_grad()
def decode(vqmodel: JanusVQVAE, image_tokens: Tensor) -> Tensor:
    """Model pixels (B, 3, H, W), about [-1, 1] with overshoot, of image tokens (B, N); `vqmodel.decode`, faster on a CPU."""
    latents = vqmodel.quantize.get_codebook_entry(image_tokens.long())  # pyright: ignore[reportArgumentType]
    levels: Any = vqmodel.decoder.up
    hooks = [level.block[0].register_forward_pre_hook(_in_the_faster_order) for level in levels]
    try:
        return vqmodel.decoder(*_in_the_faster_order(None, (vqmodel.post_quant_conv(latents),)))
    finally:
        for hook in hooks:
            hook.remove()


def _in_the_faster_order(module: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Feature maps with channels last, which convolutions are faster in; but on a CPU small ones of bf16, of which torch's
    group norm takes ten times as long so, with channels first."""
    maps = inputs[0]
    is_small = maps.shape[2:].numel() <= SMALL_MAP
    first = maps.device.type == "cpu" and maps.dtype == torch.bfloat16 and is_small
    order = torch.contiguous_format if first else torch.channels_last
    return (maps.contiguous(memory_format=order), *inputs[1:])
