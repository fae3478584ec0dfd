"""Builders of new checkpoints: what the lab must know of a family's format."""

from pathlib import Path
from typing import Any, NamedTuple, Protocol

from tokenizers import Tokenizer
from torch import Tensor

from thinkdraw.policies import BUILDERS
from thinkdraw.runtime.registry import find


class SpecialTokens(NamedTuple):
    """The spelling of a family's special tokens.

    image: stands for a patch of a shown picture.
    boi, eoi: begin and end of image.
    """

    bos: str
    eos: str
    pad: str
    image: str
    boi: str
    eoi: str


class Builder(Protocol):
    """Makes a checkpoint of a family from scratch.

    picture_model: the module that turns pictures into codes and back.
    pixels: (B, 3, H, W) in [-1, 1].
    """

    @property
    def tokens(self) -> SpecialTokens: ...

    def train_tokenizer(self, texts: list[str], vocab_size: int) -> Tokenizer:
        """Train a tokenizer with the special tokens first.

        It begins every encoding with `bos`.
        """
        ...

    def latents(self, picture_model: Any, pixels: Tensor) -> Tensor:
        """Compute the encoder's outputs (B, D, h, w), of unit length."""
        ...

    def nearest_codes(self, picture_model: Any, latents: Tensor) -> Tensor:
        """Find each latent's nearest code, (B, h·w) int64 in raster order."""
        ...

    def encode(self, picture_model: Any, pixels: Tensor, chunk: int) -> Tensor:
        """Encode pixels as image tokens (B, N) int64, `chunk` pictures at a time."""
        ...

    def write(self, model: Any, tokenizer: Tokenizer, directory: Path, image_size: int, num_image_tokens: int) -> Path:
        """Write a checkpoint that `load_policy` opens, and return its folder."""
        ...


def builder_of(family: str) -> Builder:
    """Make the builder of a family in `BUILDERS`. Raises UserError."""
    return find("builder", BUILDERS, family)()
