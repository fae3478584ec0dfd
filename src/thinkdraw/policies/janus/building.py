"""How a new Janus checkpoint is made: see `policies.building.Builder`."""

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from torch import Tensor

from thinkdraw.policies.building import SpecialTokens
from thinkdraw.policies.janus import tiny, vq


class JanusBuilder:
    """The Janus family's `Builder`."""

    tokens = SpecialTokens(tiny.BOS, tiny.EOS, tiny.PAD, tiny.IMAGE, tiny.BOI, tiny.EOI)

    def train_tokenizer(self, texts: list[str], vocab_size: int) -> Tokenizer:
        """Train a byte-level BPE with Janus's special tokens."""
        return tiny.train_tokenizer(texts, vocab_size)

    def latents(self, picture_model: Any, pixels: Tensor) -> Tensor:
        """Compute unit-length encoder outputs (B, D, h, w)."""
        return vq.latents(picture_model, pixels)

    def nearest_codes(self, picture_model: Any, latents: Tensor) -> Tensor:
        """Find each latent's nearest code by cosine, (B, h·w)."""
        return vq.nearest_codes(picture_model, latents)

    def encode(self, picture_model: Any, pixels: Tensor, chunk: int) -> Tensor:
        """Encode pixels as image tokens (B, N)."""
        return vq.encode(picture_model, pixels, chunk)

    def write(self, model: Any, tokenizer: Tokenizer, directory: Path, image_size: int, num_image_tokens: int) -> Path:
        """Write a folder that transformers' Janus classes load, and return it."""
        return tiny.build_directory(model, tokenizer, directory, image_size, num_image_tokens)
