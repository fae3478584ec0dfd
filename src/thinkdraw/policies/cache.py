"""A key-value cache for rows that stop thinking at different times and draw together.

Each slot holds one rollout, and each *way* has a row for it: the conditional way, and with guidance the unconditional one.
All rows of a way write at the same column; a row that skips a column has a hole there, which stays hidden, and its
positions are given explicitly. Rows that still think stand in the first slots, so that a batch of them is a view and not
a copy.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from thinkdraw.policies import cached_attention
from thinkdraw.policies.arena import Arena
from thinkdraw.policies.cached_attention import Angles, Kernel

Layers = list[tuple[Tensor, Tensor]]
SPARE_COLUMNS = 3  # beside prompt, thought and picture: a pending last thought token, a hole, begin-of-image


class Shape(NamedTuple):
    """What a language model keeps of a token: `heads` keys and values of `width` numbers in each layer."""

    num_layers: int
    heads: int
    width: int


@dataclass
class Way:
    """One row per slot.

    layers: keys and values, (slots, heads, columns, D) each. visible: (slots, columns) bool. num_columns: how many are
    written. kernel: what attends, None for torch. stem: keys and values (heads, L, D) of each layer that stand before
    the columns of every row, of which slot s sees stem_lengths[s]. mask: (A, 1, S, columns), 0 where the opened pass
    sees and −inf where not, for torch.
    """

    layers: Layers
    visible: Tensor
    kernel: Kernel | None = None
    num_columns: int = 0
    stem: Layers | None = None
    stem_lengths: Tensor = field(default_factory=lambda: torch.zeros(0))
    mask: Tensor = field(default_factory=lambda: torch.zeros(0))

    @classmethod
    def blank(
        cls, arena: Arena, shape: Shape, slots: int, columns: int, dtype: torch.dtype, device: torch.device,
        kernel: Kernel | None = None,
    ) -> "Way":  # fmt: skip
        """Room for `columns` tokens of `slots` rows."""
        keys, values = (
            arena.take((shape.num_layers, slots, shape.heads, columns, shape.width), dtype, device) for _ in range(2)
        )
        visible = torch.zeros(slots, columns, dtype=torch.bool, device=device)
        return cls(list(zip(keys, values)), visible, kernel)

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
        assert self.kernel is not None, "torch's attention knows no stem"
        self.stem, self.stem_lengths = [(keys[0], values[0]) for keys, values in source], lengths

    def open(self, seen: Tensor) -> None:
        """Open columns for a pass that writes seen.shape[1] of them; seen: (A, S) bool, False where a row skips one."""
        begin, (rows, width) = self.num_columns, seen.shape
        self.visible[:rows, begin : begin + width] = seen
        if self.kernel is None:
            visible = self.visible[:rows, None, : begin + width].repeat(1, width, 1)
            visible[..., begin:] &= torch.ones(width, width, dtype=torch.bool, device=seen.device).tril()
            # Numbers, which torch would else make of it again in every layer.
            hidden = torch.zeros(visible.shape, dtype=self.layers[0][0].dtype, device=seen.device)
            self.mask = hidden.masked_fill_(~visible, float("-inf"))[:, None]

    def attend(self, layer: int, heads: Tensor, angles: Angles, scale: float) -> Tensor:
        """Write the opened columns of a layer, and what its queries find: (A, S, Hq, D).

        heads: (A, S, Hq + 2 · heads, D), queries, then keys, then values.
        """
        keys, values = self.layers[layer]
        if self.kernel is None:
            return cached_attention.attend(heads, angles, keys, values, self.mask, self.num_columns, scale)
        stem = None if self.stem is None else (*self.stem[layer], self.stem_lengths)
        return self.kernel(heads, angles, keys, values, self.visible, self.num_columns, stem, scale)


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

    def attend(self, layer: int, heads: Tensor, angles: Angles, scale: float) -> Tensor:
        """See `Way.attend`; rows as in `open`."""
        parts = zip(*(states.chunk(len(self.ways)) for states in (heads, *angles)))
        found = [way.attend(layer, own, (cos, sin), scale) for way, (own, cos, sin) in zip(self.ways, parts)]
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
