"""The KV cache: keys and values of what each row has read, and attention over them.

The token at position p of a row is in column p, so rows have lengths of their own: each may begin, stop and make room for
another while others go on. A row attends to the columns up to the token that it reads. What is in later columns, padding
or a former row's tokens, is masked and later overwritten.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

Layers = list[tuple[Tensor, Tensor]]  # keys and values of each layer, (rows, heads, columns, D)
Rotation = tuple[Tensor, Tensor]  # RoPE's cosines and signed sines, see `rotary_signs`


class CacheShape(NamedTuple):
    """What a language model caches of a token: in each layer `heads` keys and values of `width` numbers."""

    num_layers: int
    heads: int
    width: int


def rotary_signs(cos: Tensor, sin: Tensor) -> Rotation:
    """Cosines and signed sines (R, S, D) of RoPE: x is rotated by x · cos + swapped(x) · sin.

    With x = (a, b) in halves and swapped(x) = (b, a), that is (a cos − b sin, b cos + a sin).
    Su et al. 2021 (arXiv 2104.09864), halves as in transformers.
    """
    first, second = sin.chunk(2, dim=-1)
    return cos, torch.cat([-first, second], dim=-1)


class KVCache:
    """Keys and values of some rows. For each forward pass: `begin_pass`, then `attend` in each layer."""

    def __init__(self, layers: Layers) -> None:
        self.layers = layers

    @classmethod
    def blank(cls, shape: CacheShape, rows: int, capacity: int, dtype: torch.dtype, device: torch.device) -> "KVCache":
        """Room for `capacity` tokens of each row."""
        size = (shape.num_layers, rows, shape.heads, capacity, shape.width)
        # Zeros, for attention multiplies what is masked by 0, and 0 · NaN of fresh memory is NaN.
        keys, values = (torch.zeros(size, dtype=dtype, device=device) for _ in range(2))
        return cls(list(zip(keys, values)))

    @property
    def capacity(self) -> int:
        """Columns of each row."""
        return self.layers[0][0].shape[2]

    def part(self, begin: int, end: int) -> "KVCache":
        """Rows begin .. end − 1, in the same memory."""
        return KVCache([(keys[begin:end], values[begin:end]) for keys, values in self.layers])

    def copy(self, here: Tensor, there: Tensor, columns: int) -> None:
        """Copy the first columns of rows `there` to rows `here`, (k,) int64 each; all are read before any is written."""
        for layer in self.layers:
            for buffer in layer:
                buffer[here, :, :columns] = buffer[there, :, :columns]

    def prefix_cache(self, row: int, length: int) -> "KVCache":
        """A cache of one row, to prefill a prefix of `length` tokens that rows from `row` on are to share."""
        return self.part(row, row + 1)

    def share_prefix(self, prefix: "KVCache", row: int, lengths: Tensor) -> None:
        """Let each row from `row` on begin with the first lengths[r] columns of `prefix_cache(row, …)`."""
        rows = torch.arange(row, row + len(lengths), device=lengths.device)
        # The longest row's part for all rows: what is too much for a row is masked, and later overwritten.
        self.copy(rows, torch.full_like(rows, row), int(lengths.max()))

    def begin_pass(self, positions: Tensor, columns: int) -> None:
        """Begin a pass over S new tokens of each of the first R rows.

        positions: (R, S), consecutive in each row, all below `columns`. columns: how many of them attention looks at.
        """
        self._rows = torch.arange(len(positions), device=positions.device)[:, None]
        self._positions = positions
        visible = torch.arange(columns, device=positions.device) <= positions[..., None]
        zero = torch.zeros((), dtype=self.layers[0][0].dtype, device=positions.device)
        # Added to attention's scores, (R, 1, S, columns). As numbers: each layer would else convert a bool mask to them.
        self._mask = torch.where(visible, zero, float("-inf"))[:, None]

    def attend(self, layer: int, heads: Tensor, rotation: Rotation, scale: float) -> Tensor:
        """Attention (R, S, Hq, D) of the pass's tokens to their rows; caches their keys and values.

        heads: (R, S, Hq + 2 · heads, D), queries, then keys, then values of each token, before RoPE.
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
