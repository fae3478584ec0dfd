"""A key-value cache for rows that stop thinking at different times and draw together.

Each slot holds one rollout, and each *way* has a row for it: the conditional way, and with guidance the unconditional one.
All rows of a way write at the same column; a row that skips a column has a hole there, which the mask hides, and its
positions are given explicitly. Rows that still think stand in the first slots, so that a batch of them is a view and not
a copy.
"""

from dataclasses import dataclass, field
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.cache_utils import DynamicCache

Layers = list[tuple[Tensor, Tensor]]
SPARE_COLUMNS = 3  # beside prompt, thought and picture: a pending last thought token, a hole, begin-of-image


def cache_dtype(model_dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """What keys and values are kept in. fp32 on a CPU: torch's attention of one query is twice as slow there in bf16."""
    if device.type == "cpu":
        return torch.float32
    autocasts = torch.is_autocast_enabled(device.type)
    return torch.get_autocast_dtype(device.type) if autocasts else model_dtype


def layers_of(cache: DynamicCache) -> Layers:
    """Keys and values of each layer, (rows, heads, columns, D)."""
    return [cast(tuple[Tensor, Tensor], layer[:2]) for layer in cache]


@dataclass
class Way:
    """One row per slot.

    layers: keys and values, (slots, heads, columns, D) each. visible: (slots, columns) bool. num_columns: how many are
    written. stem: keys and values (heads, L, D) of each layer that stand before the columns of every row, and
    stem_added: (slots, L), 0 where a row sees it, else −inf. mask, stem_mask: what the opened pass adds to its scores.
    """

    layers: Layers
    visible: Tensor
    num_columns: int = 0
    stem: Layers | None = None
    stem_added: Tensor = field(default_factory=lambda: torch.zeros(0, 0))
    mask: Tensor = field(default_factory=lambda: torch.zeros(0))
    stem_mask: Tensor = field(default_factory=lambda: torch.zeros(0))

    @classmethod
    def blank(cls, like: Layers, slots: int, columns: int, dtype: torch.dtype) -> "Way":
        """Room for `columns` tokens of `slots` rows, of the number of heads and width of `like`."""
        device = like[0][0].device
        _, heads, _, width = like[0][0].shape
        memory = _fresh((len(like), 2, slots, heads, columns, width), dtype, device)
        visible = torch.zeros(slots, columns, dtype=torch.bool, device=device)
        return cls([(memory[i, 0], memory[i, 1]) for i in range(len(like))], visible)

    def blank_hidden(self) -> None:
        """Zeros in all hidden columns: rows that had retired did not write theirs, and 0 · NaN of fresh memory is NaN."""
        hidden = ~self.visible[:, None, : self.num_columns, None]
        for layer in self.layers:
            for buffer in layer:
                buffer[:, :, : self.num_columns].masked_fill_(hidden, 0.0)

    def fill(self, source: Layers, rows: Tensor, lengths: Tensor) -> None:
        """Copy prefilled contexts: slot s takes row rows[s] of the source, of length lengths[s]."""
        self.num_columns = source[0][0].shape[2]
        for own, given in zip(self.layers, source):
            for buffer, states in zip(own, given):
                buffer[:, :, : self.num_columns] = states[rows]
        self.visible[:] = torch.arange(self.visible.shape[1], device=self.visible.device) < lengths[:, None]

    def stand_on(self, source: Layers, lengths: Tensor) -> None:
        """Take the one row of `source` as the stem; slot s sees lengths[s] of it. It is read once for all rows."""
        dtype = self.layers[0][0].dtype
        self.stem = [(keys[0].to(dtype), values[0].to(dtype)) for keys, values in source]
        width = source[0][0].shape[2]
        self.stem_added = self._added(torch.arange(width, device=lengths.device) < lengths[:, None])

    def open(self, seen: Tensor) -> None:
        """Open columns for a pass that writes seen.shape[1] of them; seen: (A, S) bool, False where a row skips one."""
        begin, (rows, width) = self.num_columns, seen.shape
        self.visible[:rows, begin : begin + width] = seen
        visible = self.visible[:rows, None, : begin + width].repeat(1, width, 1)
        if width > 1:
            visible[..., begin:] &= torch.ones(width, width, dtype=torch.bool, device=seen.device).tril()
        self.mask = self._added(visible)[:, None]
        if self.stem is not None:
            self.stem_mask = self.stem_added[:rows].repeat_interleave(width, 0)[None, None]

    def _added(self, visible: Tensor) -> Tensor:
        """What is added to scores: 0, or −inf where a column is hidden."""
        zeros = torch.zeros(visible.shape, dtype=self.layers[0][0].dtype, device=visible.device)
        return zeros.masked_fill_(~visible, float("-inf"))

    def attend(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
        """Write the opened columns of a layer, and what its queries find: (A, Hq, S, D).

        queries: (A, Hq, S, D). keys, values: (A, heads, S, D).
        """
        end = self.num_columns + keys.shape[2]
        found = []
        for buffer, states in zip(self.layers[layer], (keys, values)):
            buffer[: len(keys), :, self.num_columns : end] = states
            found.append(buffer[: len(keys), :, :end])
        queries = queries.to(found[0].dtype)
        if self.stem is not None:
            own = _attention_and_weight(queries, found[0], found[1], self.mask, scale)
            return self._with_stem(own, layer, queries, scale)
        grouped = queries.shape[1] != keys.shape[1]
        return F.scaled_dot_product_attention(queries, *found, attn_mask=self.mask, scale=scale, enable_gqa=grouped)

    def _with_stem(self, own: tuple[Tensor, Tensor], layer: int, queries: Tensor, scale: float) -> Tensor:
        """Attention over stem and own columns from that over each: all rows' queries meet the stem as if they were one row's."""
        assert self.stem is not None
        stem_keys, stem_values = (states[None] for states in self.stem[layer])
        together = queries.transpose(0, 1).flatten(1, 2)[None]  # (1, Hq, A·S, D)
        found, weight = _attention_and_weight(together, stem_keys, stem_values, self.stem_mask, scale)
        found, weight = (part[0].unflatten(1, (len(queries), -1)).transpose(0, 1) for part in (found, weight))
        # Weights are log-sums of exponentials; the own columns' part in the sum over both is a sigmoid of their difference.
        return torch.lerp(found, own[0], torch.sigmoid(own[1] - weight)[..., None])


def _fresh(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Memory that nothing is written in yet. On a CPU numpy's, which asks the system for huge pages: pages of 4 kB, and
    there are tens of thousands of them, cost a tenth of the sampler's time."""
    if device.type == "cpu" and dtype == torch.float32:
        return torch.from_numpy(np.empty(shape, dtype=np.float32))
    return torch.empty(shape, dtype=dtype, device=device)


def _attention_and_weight(
    queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """Attention (B, Hq, S, D) and the log-sum-exp of its scores (B, Hq, S), as torch's kernel on a CPU gives both."""
    if (groups := queries.shape[1] // keys.shape[1]) > 1:
        keys, values = (states.repeat_interleave(groups, 1) for states in (keys, values))
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    return kernel(queries, keys, values, attn_mask=mask, scale=scale)


class SlotCache:
    """The ways of all slots.

    order: (slots,) int64, the rollout in each slot. num_active: slots 0 .. num_active − 1 take part in a forward pass,
    of one way or of two.
    """

    def __init__(self, conditional: Way):
        self.ways = [conditional]
        slots, device = len(conditional.visible), conditional.visible.device
        self.order, self.num_active = torch.arange(slots, device=device), slots

    def open(self, seen: Tensor) -> None:
        """seen: (ways · A, S) bool, the first way's rows first. Call `close(S)` after the pass."""
        for way, part in zip(self.ways, seen.chunk(len(self.ways))):
            way.open(part)

    def attend(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
        """See `Way.attend`; rows as in `open`."""
        parts = zip(*(states.chunk(len(self.ways)) for states in (queries, keys, values)))
        found = [way.attend(layer, q, k, v, scale) for way, (q, k, v) in zip(self.ways, parts)]
        return found[0] if len(found) == 1 else torch.cat(found)

    def close(self, width: int) -> None:
        for way in self.ways:
            way.num_columns += width

    def retire(self, done: Tensor) -> None:
        """Move the active slots that are done, (num_active,) bool, behind the others, keys and values with them."""
        assert len(self.ways) == 1, "rows retire while they think, and the unconditional way does not think"
        way = self.ways[0]
        remaining = int((~done).sum())
        holes = done[:remaining].nonzero().flatten()
        movers = (~done[remaining:]).nonzero().flatten() + remaining
        if len(holes):
            here, there = torch.cat([holes, movers]), torch.cat([movers, holes])
            for layer in way.layers:
                for buffer in layer:
                    buffer[here, :, : way.num_columns] = buffer[there, :, : way.num_columns]
            way.visible[here] = way.visible[there]
            self.order[here] = self.order[there]
        self.num_active = remaining
