"""A key-value cache for rows that stop thinking at different times and draw together.

Each slot holds one rollout, each slot has one way (conditional) or two (with the unconditional row of guidance). All
slots write at the same column; a slot that skips a column has a hole there, which the mask hides, and its positions are
given explicitly. Rows that still think stand in the first slots, so that a batch of them is a view and not a copy.
"""

from typing import cast

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicCache


class _Layer(CacheLayerMixin):
    """Keys and values of one layer, (slots, ways, columns, heads, D)."""

    is_sliding = False

    def __init__(self, owner: "SlotCache"):
        super().__init__()
        self.owner = owner

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        if self.is_initialized:
            return
        heads, dim = value_states.shape[1], value_states.shape[3]
        shape = (*self.owner.visible.shape, heads, dim)
        # Zeros: masked columns are multiplied by 0, and 0 · NaN from fresh memory would be NaN.
        self.keys = torch.zeros(shape, dtype=self.owner.dtype, device=value_states.device)
        self.values = torch.zeros_like(self.keys)
        self.buffers = (self.keys, self.values)
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args, **kwargs) -> tuple[Tensor, Tensor]:
        begin, end = self.owner.num_columns, self.owner.num_columns + key_states.shape[2]
        views = []
        for buffer, states in zip(self.buffers, (key_states, value_states)):
            rows = self.owner.rows_of(buffer)
            rows[:, begin:end] = states.transpose(1, 2)
            views.append(rows[:, :end].transpose(1, 2))
        return views[0], views[1]

    def get_seq_length(self) -> int:
        return self.owner.num_columns

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.owner.num_columns + query_length, 0

    def get_max_length(self) -> int:
        return self.owner.visible.shape[2]


class SlotCache(Cache):
    """The cache, and which columns each slot may see.

    order: (slots,) int64, the rollout in each slot. num_active: slots 0 .. num_active − 1 take part in a forward pass.
    both_ways: whether the unconditional ways do too. visible: (slots, ways, columns) bool.
    """

    def __init__(self, num_layers: int, slots: int, ways: int, columns: int, dtype: torch.dtype, device: torch.device):
        self.dtype = dtype
        self.visible = torch.zeros(slots, ways, columns, dtype=torch.bool, device=device)
        self.order = torch.arange(slots, device=device)
        self.num_active, self.num_columns, self.both_ways = slots, 0, False
        self.slot_layers = [_Layer(self) for _ in range(num_layers)]
        super().__init__(layers=list(self.slot_layers))

    def rows_of(self, buffer: Tensor) -> Tensor:
        """A view of the rows that take part: (num_active · ways, columns, …), or of the conditional ways only."""
        active = buffer[: self.num_active]
        return active.flatten(0, 1) if self.both_ways else active[:, 0]

    def fill(self, way: int, source: DynamicCache, rows: Tensor, lengths: Tensor) -> None:
        """Copy prefilled contexts into one way: slot s takes row rows[s] of the source, of length lengths[s]."""
        width = source.get_seq_length()
        for own, layer in zip(self.slot_layers, source):
            keys, values = cast(tuple[Tensor, Tensor], layer[:2])
            own.lazy_initialization(keys, values)
            for buffer, states in zip(own.buffers, (keys, values)):
                buffer[:, way, :width] = states.transpose(1, 2)[rows]
        columns = torch.arange(self.visible.shape[2], device=self.visible.device)
        self.visible[:, way] = columns < lengths[:, None]
        self.num_columns = max(self.num_columns, width)

    def open(self, seen: Tensor) -> Tensor:
        """Open new columns and give the attention mask (rows, 1, S, columns) of a pass that writes them.

        seen: (rows, S) bool, False where a row skips a column. Call `close(S)` after the pass.
        """
        begin, width = self.num_columns, seen.shape[1]
        visible = self.rows_of(self.visible)
        visible[:, begin : begin + width] = seen
        mask = visible[:, None, None, : begin + width]
        if width > 1:
            mask = mask.repeat(1, 1, width, 1)
            mask[..., begin:] &= torch.ones(width, width, dtype=torch.bool, device=mask.device).tril()
        return mask

    def close(self, width: int) -> None:
        self.num_columns += width

    def retire(self, done: Tensor) -> None:
        """Move the active slots that are done, (num_active,) bool, behind the others, keys and values with them."""
        remaining = int((~done).sum())
        holes = done[:remaining].nonzero().flatten()
        movers = (~done[remaining:]).nonzero().flatten() + remaining
        if len(holes):
            here, there = torch.cat([holes, movers]), torch.cat([movers, holes])
            for layer in self.slot_layers:
                for buffer in layer.buffers:
                    buffer[here, 0, : self.num_columns] = buffer[there, 0, : self.num_columns]
            self.visible[here] = self.visible[there]
            self.order[here] = self.order[there]
        self.num_active = remaining
