"""Pictures ↔ image tokens through Janus's VQ model, with the L2-normalised codebook that its decoder uses.

`JanusVQVAE.encode` leaves the normalisation out, so its tokens are not the ones the reference implementation would give
(deepseek-ai/Janus, `vq_model.py`: `l2_norm=True`); everything here goes through `nearest_codes` instead.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import JanusVQVAE

from thinkdraw.policies import speed


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
    """Model pixels (B, 3, H, W), about [-1, 1] with overshoot, of image tokens (B, N)."""
    latents = vqmodel.quantize.get_codebook_entry(image_tokens.long())  # pyright: ignore[reportArgumentType]
    return speed.decode_latents(vqmodel.decoder, vqmodel.post_quant_conv(latents))
