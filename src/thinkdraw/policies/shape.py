"""The sizes of a model, from which `thinkdraw plan` computes memory and seconds.

No weight is loaded for it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from thinkdraw.policies.lora import LoraSettings


@dataclass(frozen=True)
class Weights:
    """Numbers of parameters.

    drawing: of everything that thinks and draws, layers and heads included.
    adapters: 0 without LoRA.
    """

    total: int
    drawing: int
    layers: int
    text_head: int
    image_head: int
    adapters: int

    @property
    def trained(self) -> int:
        """Trained parameters: the adapters, or everything that draws."""
        return self.adapters or self.drawing


class Shape(Protocol):
    """A decoder of Llama's kind, with a head for text and one for image tokens.

    hidden, mlp: widths.
    vocabulary, codes: entries of the two heads.
    chunk_logits: the most logits of one head that learning makes at once.
    """

    layers: int
    hidden: int
    mlp: int
    heads: int
    vocabulary: int
    codes: int
    image_tokens: int
    chunk_logits: float

    def weights(self, lora: LoraSettings | None) -> Weights:
        """Count the parameters."""
        ...

    def kv_bytes(self, columns: int, itemsize: int) -> int:
        """Return the size of keys and values of one row with `columns` tokens."""
        ...

    def row_bytes(self, columns: int, itemsize: int) -> int:
        """Return the memory that one row needs while it is sampled."""
        ...

    def picture_bytes(self, itemsize: int) -> int:
        """Return the memory that one picture needs while it is decoded."""
        ...


class Shapes(Protocol):
    """A family's class of shapes, an entry of `SHAPES`."""

    def published(self) -> Iterable[str]:
        """List the names of known models, which can be planned for without a checkpoint."""
        ...

    def of_published(self, name: str) -> Shape:
        """Make the shape of a known model."""
        ...

    def of_checkpoint(self, path: str) -> Shape:
        """Make the shape of a checkpoint."""
        ...
