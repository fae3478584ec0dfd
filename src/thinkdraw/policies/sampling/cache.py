"""Keys and values of what each row has read, and attention over them: the token at position p of a row stands in column p.

So rows have lengths of their own: each may begin, stop and make room for another while others go on. A row sees the columns
up to the token that it reads. What lies behind, padding or what a former row left, is never seen and later written over.
"""

from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from thinkdraw.policies.fast.buffer_pool import Arena
from thinkdraw.policies.fast.cpu_kernels import Angles, Kernels

Layers = list[tuple[Tensor, Tensor]]


class Shape(NamedTuple):
    """What a language model keeps of a token: `heads` keys and values of `width` numbers in each layer."""

    num_layers: int
    heads: int
    width: int


def turning(cos: Tensor, sin: Tensor) -> Angles:
    """Cosines and sines (R, S, D) so that x cos + swapped(x) sin turns x = (a, b) into (a cos − b sin, b cos + a sin).

    Su et al. 2021 (arXiv 2104.09864), halves as in transformers; swapped(x) = (b, a).
    """
    first, second = sin.chunk(2, dim=-1)
    return cos, torch.cat([-first, second], dim=-1)


@dataclass
class Cache:
    """Rows, of which a pass reads the first ones.

    layers: keys and values, (rows, heads, columns, D) each. kernels: what attends, None for torch. stem: keys and values
    (heads, L, D) of each layer of which row r sees the first stem_lengths[r], (rows,) int64; its own columns follow, so
    that its position p is in column p − stem_lengths[r]. Only with kernels.
    """

    layers: Layers
    kernels: Kernels | None
    stem: Layers | None = None
    stem_lengths: Tensor | None = None
    # Of the pass that is open: for kernels the columns where its rows begin (R,), for torch rows and columns of all its tokens,
    # (R, 1) and (R, S), and what is added to scores (R, 1, S, columns).
    _begins: Tensor = field(default_factory=lambda: torch.zeros(0))
    _places: tuple[Tensor, Tensor] = field(default_factory=lambda: (torch.zeros(0), torch.zeros(0)))
    _mask: Tensor = field(default_factory=lambda: torch.zeros(0))

    @classmethod
    def blank(
        cls, arena: Arena, shape: Shape, rows: int, columns: int, dtype: torch.dtype, device: torch.device,
        kernels: Kernels | None = None,
    ) -> "Cache":  # fmt: skip
        """Room for `columns` tokens of each row."""
        keys, values = (
            arena.take((shape.num_layers, rows, shape.heads, columns, shape.width), dtype, device) for _ in range(2)
        )
        if kernels is None:  # torch multiplies what is not seen by 0, and 0 · NaN of fresh memory is NaN
            keys.zero_()
            values.zero_()
        return cls(list(zip(keys, values)), kernels)

    @property
    def room(self) -> int:
        """Columns of each row."""
        return self.layers[0][0].shape[2]

    def part(self, begin: int, end: int) -> "Cache":
        """Rows begin .. end − 1, in the same memory, without a stem."""
        return Cache([(keys[begin:end], values[begin:end]) for keys, values in self.layers], self.kernels)

    def on_stem(self, stem: "Cache", lengths: Tensor) -> "Cache":
        """The same memory, row r standing on the first lengths[r] columns of the stem's only row: they are read once for all."""
        assert self.kernels is not None, "torch's attention knows no stem"
        return replace(self, stem=[(keys[0], values[0]) for keys, values in stem.layers], stem_lengths=lengths)

    def copy(self, here: Tensor, there: Tensor, columns: int) -> None:
        """Rows `here` become what rows `there` were, (k,) int64 each, in their first columns."""
        for layer in self.layers:
            for buffer in layer:
                buffer[here, :, :columns] = buffer[there, :, :columns]

    def open(self, positions: Tensor, columns: int) -> None:
        """Begin a pass of the first R rows over tokens at positions (R, S), consecutive in each row and below `columns`."""
        if self.kernels is not None:
            begins = positions[:, 0].contiguous()
            self._begins = begins if self.stem_lengths is None else begins - self.stem_lengths[: len(begins)]
            first, last = map(int, self._begins.aminmax())
            if first < 0 or last + positions.shape[1] > self.room or len(begins) > len(self.layers[0][0]):
                raise IndexError(f"no room for columns {first} to {last}")  # the kernels write wherever they are told
            return
        self._places = torch.arange(len(positions), device=positions.device)[:, None], positions
        seen = torch.arange(columns, device=positions.device) <= positions[..., None]
        zero = torch.zeros((), dtype=self.layers[0][0].dtype, device=positions.device)
        # As numbers, which every layer would else make of it.
        self._mask = torch.where(seen, zero, float("-inf"))[:, None]

    def attend(self, layer: int, heads: Tensor, angles: Angles, scale: float) -> Tensor:
        """What the queries of the pass's tokens find, (R, S, Hq, D); writes their keys and values.

        heads: (R, S, Hq + 2 · heads, D), queries, then keys, then values of each token. angles: see `turning`.
        """
        keys, values = self.layers[layer]
        if self.kernels is None:
            return self._by_torch(heads, angles, keys, values, scale)
        stem = None
        if self.stem is not None and self.stem_lengths is not None:
            stem = (*self.stem[layer], self.stem_lengths)
        return self.kernels.attend(heads, angles, keys, values, self._begins, stem, scale)

    def _by_torch(self, heads: Tensor, angles: Angles, keys: Tensor, values: Tensor, scale: float) -> Tensor:
        rows, key_heads = len(heads), keys.shape[1]
        both, new_values = heads.split([heads.shape[2] - key_heads, key_heads], dim=2)
        cos, sin = (a[:, :, None] for a in angles)
        both = both.to(cos.dtype)
        turned = torch.addcmul(both * cos, both.roll(heads.shape[3] // 2, -1), sin)
        queries, new_keys = turned.to(keys.dtype).split([heads.shape[2] - 2 * key_heads, key_heads], dim=2)
        row, column = self._places
        keys[row, :, column], values[row, :, column] = new_keys, new_values.to(values.dtype)
        columns = self._mask.shape[-1]
        found = F.scaled_dot_product_attention(
            queries.transpose(1, 2), keys[:rows, :, :columns], values[:rows, :, :columns], attn_mask=self._mask,
            scale=scale, enable_gqa=queries.shape[2] > key_heads,
        )  # fmt: skip
        return found.transpose(1, 2)
