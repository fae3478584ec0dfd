"""The KV cache: each row's keys and values, and attention over them.

The token at position p of a row is in column p, so each row has its own length. A row may start, stop, or make way
for a new one while others go on. A row attends to the columns up to the token that it reads. Later columns hold
padding or a former row's tokens: they are masked now and overwritten later.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

Layers = list[tuple[Tensor, Tensor]]  # keys and values of each layer, (rows, heads, columns, D)
Rotation = tuple[Tensor, Tensor]  # RoPE's cosines and signed sines, see `rotary_signs`


class CacheShape(NamedTuple):
    """What a token takes in the cache: `heads` keys and values of `width` per layer."""

    num_layers: int
    heads: int
    width: int


def rotary_signs(cos: Tensor, sin: Tensor) -> Rotation:
    """Prepare RoPE's cosines and signed sines (R, S, D).

    With them, x is rotated by x · cos + swapped(x) · sin: for x = (a, b) in halves and swapped(x) = (b, a), that is
    (a cos − b sin, b cos + a sin).
    Su et al. 2021 (arXiv 2104.09864), with halves as in transformers.
    """
    first, second = sin.chunk(2, dim=-1)
    return cos, torch.cat([-first, second], dim=-1)


class KVCache:
    """Keys and values of some rows.

    For each forward pass, call `begin_pass` once and then `attend` in each layer.
    """

    def __init__(self, layers: Layers) -> None:
        self.layers = layers

    @classmethod
    def blank(cls, shape: CacheShape, rows: int, capacity: int, dtype: torch.dtype, device: torch.device) -> "KVCache":
        """Allocate a cache with space for `capacity` tokens in each row."""
        size = (shape.num_layers, rows, shape.heads, capacity, shape.width)
        # Zeros, because attention multiplies masked values by 0, and uninitialised memory may hold NaN: 0 · NaN is NaN.
        keys, values = (torch.zeros(size, dtype=dtype, device=device) for _ in range(2))
        return cls(list(zip(keys, values)))

    @property
    def capacity(self) -> int:
        """Columns of each row."""
        return self.layers[0][0].shape[2]

    def part(self, begin: int, end: int) -> "KVCache":
        """Return rows begin .. end − 1, in the same memory."""
        return KVCache([(keys[begin:end], values[begin:end]) for keys, values in self.layers])

    def copy(self, targets: Tensor, sources: Tensor, columns: int) -> None:
        """Copy the first columns of rows `sources` to rows `targets`, (k,) int64 each.

        All rows are read before any is written, so rows may be swapped.
        """
        for layer in self.layers:
            for buffer in layer:
                buffer[targets, :, :columns] = buffer[sources, :, :columns]

    def prefix_cache(self, row: int, length: int) -> "KVCache":
        """Make a cache of one row, to prefill the shared prefix of the rows from `row` on.

        length: tokens of the prefix.
        """
        return self.part(row, row + 1)

    def share_prefix(self, prefix: "KVCache", row: int, lengths: Tensor) -> None:
        """Let each row from `row` on begin with its part of the shared prefix.

        prefix: from `prefix_cache(row, …)`.
        lengths: how many of the prefix's first columns each row has.
        """
        rows = torch.arange(row, row + len(lengths), device=lengths.device)
        # All rows get the longest row's part: the surplus of a shorter row is masked, and overwritten later.
        self.copy(rows, torch.full_like(rows, row), int(lengths.max()))

    def begin_pass(self, positions: Tensor, columns: int) -> None:
        """Begin a pass over S new tokens of each of the first R rows.

        positions: (R, S), consecutive in each row, all below `columns`.
        columns: how many columns attention reads.
        """
        self._rows = torch.arange(len(positions), device=positions.device)[:, None]
        self._positions = positions
        visible = torch.arange(columns, device=positions.device) <= positions[..., None]
        zero = torch.zeros((), dtype=self.layers[0][0].dtype, device=positions.device)
        # (R, 1, S, columns), added to attention's scores. Given a bool mask, torch would convert it in every layer.
        self._mask = torch.where(visible, zero, float("-inf"))[:, None]

    def attend(self, layer: int, heads: Tensor, rotation: Rotation, scale: float) -> Tensor:
        """Cache the pass's keys and values, and attend: (R, S, Hq, D).

        heads: (R, S, Hq + 2 · heads, D), each token's queries, then keys, then values, before RoPE.
        """
        keys, values = self.layers[layer]
        rows, key_heads = len(heads), keys.shape[1]
        queries_and_keys, new_values = heads.split([heads.shape[2] - key_heads, key_heads], dim=2)
        cos, sin = (a[:, :, None] for a in rotation)
        unrotated = queries_and_keys.to(cos.dtype)
        rotated = torch.addcmul(unrotated * cos, unrotated.roll(heads.shape[3] // 2, -1), sin)
        queries, new_keys = rotated.to(keys.dtype).split([heads.shape[2] - 2 * key_heads, key_heads], dim=2)
        keys[self._rows, :, self._positions] = new_keys
        values[self._rows, :, self._positions] = new_values.to(values.dtype)
        columns = self._mask.shape[-1]
        attended = F.scaled_dot_product_attention(
            queries.transpose(1, 2), keys[:rows, :, :columns], values[:rows, :, :columns], attn_mask=self._mask,
            scale=scale, enable_gqa=queries.shape[2] > key_heads,
        )  # fmt: skip
        return attended.transpose(1, 2)
