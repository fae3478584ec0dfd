"""Pictures to image tokens and back through Janus's VQ model.

The decoder uses an L2-normalised codebook. `JanusVQVAE.encode` leaves the normalisation out, so its tokens differ
from those of the reference implementation (deepseek-ai/Janus, `vq_model.py`: `l2_norm=True`). Everything here goes
through `nearest_codes` instead.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import JanusVQVAE

from thinkdraw.policies import speed


def latents(vqmodel: JanusVQVAE, pixels: Tensor) -> Tensor:
    """Compute unit-length encoder outputs (B, D, h, w).

    pixels: (B, 3, H, W) in [-1, 1].
    """
    return F.normalize(vqmodel.quant_conv(vqmodel.encoder(pixels)).float(), dim=1)


def nearest_codes(vqmodel: JanusVQVAE, unit_latents: Tensor) -> Tensor:
    """Find each latent's nearest code by cosine, (B, h·w) int64 in raster order."""
    codebook = F.normalize(vqmodel.quantize.embedding.weight.float(), dim=-1)
    flat = unit_latents.flatten(2).transpose(1, 2)
    return (flat @ codebook.T).argmax(dim=-1)


@torch.no_grad()
def encode(vqmodel: JanusVQVAE, pixels: Tensor, chunk: int = 64) -> Tensor:
    """Encode model pixels (B, 3, H, W) as image tokens (B, N) int64."""
    return torch.cat([nearest_codes(vqmodel, latents(vqmodel, few)) for few in pixels.split(chunk)])


@torch.no_grad()
def decode(vqmodel: JanusVQVAE, image_tokens: Tensor) -> Tensor:
    """Decode image tokens (B, N) to model pixels (B, 3, H, W).

    Pixels are about [-1, 1], with overshoot.
    """
    latents = vqmodel.quantize.get_codebook_entry(image_tokens.long())  # pyright: ignore[reportArgumentType]
    return speed.decode_latents(vqmodel.decoder, vqmodel.post_quant_conv(latents))
