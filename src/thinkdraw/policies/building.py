"""Make a checkpoint of a family from nothing: what the lab's own training needs to know of the family's format."""

from pathlib import Path
from typing import Any, NamedTuple, Protocol

from tokenizers import Tokenizer
from torch import Tensor

from thinkdraw.policies import BUILDERS
from thinkdraw.runtime.registry import find


class SpecialTokens(NamedTuple):
    """How a family's special tokens are spelled. image: stands for a shown picture's patch. boi, eoi: around a picture."""

    bos: str
    eos: str
    pad: str
    image: str
    boi: str
    eoi: str


class Builder(Protocol):
    """picture_model: the module that turns pictures into codes and back; pixels: (B, 3, H, W) in [-1, 1]."""

    @property
    def tokens(self) -> SpecialTokens: ...

    def train_tokenizer(self, texts: list[str], vocab_size: int) -> Tokenizer:
        """A tokenizer with the special tokens first, which begins every encoding with `bos`."""
        ...

    def latents(self, picture_model: Any, pixels: Tensor) -> Tensor:
        """Unit-length encoder outputs (B, D, h, w)."""
        ...

    def nearest_codes(self, picture_model: Any, latents: Tensor) -> Tensor:
        """(B, h·w) int64 in raster order."""
        ...

    def encode(self, picture_model: Any, pixels: Tensor, chunk: int) -> Tensor:
        """Image tokens (B, N) int64."""
        ...

    def write(self, model: Any, tokenizer: Tokenizer, directory: Path, image_size: int, num_image_tokens: int) -> Path:
        """A checkpoint that `load_policy` opens. Returns its folder."""
        ...


def builder_of(family: str) -> Builder:
    """The builder of an entry of `BUILDERS`. Raises UserError."""
    return find("builder", BUILDERS, family)()
