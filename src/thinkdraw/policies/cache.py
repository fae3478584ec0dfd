"""A key-value cache for rows that stop thinking at different times and draw together.

Each slot holds one rollout, and each *way* has a row for it: the conditional way, and with guidance the unconditional one.
All rows of a way write at the same column; a row that skips a column has a hole there, which the mask hides, and its
positions are given explicitly. Rows that still think stand in the first slots, so that a batch of them is a view and not
a copy.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from thinkdraw.policies.arena import Arena

Layers = list[tuple[Tensor, Tensor]]
WIDER = 16  # columns by which the room for keys grows on a CPU
SPARE_COLUMNS = 3  # beside prompt, thought and picture: a pending last thought token, a hole, begin-of-image


def cache_dtype(model_dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """What keys and values are kept in. fp32 on a CPU: products of one query are no faster there in bf16."""
    if device.type == "cpu":
        return torch.float32
    autocasts = torch.is_autocast_enabled(device.type)
    return torch.get_autocast_dtype(device.type) if autocasts else model_dtype


def by_products(device: torch.device) -> bool:
    """Whether attention is two batched products: on a CPU, where torch's kernel takes up to twice as long for one query."""
    return device.type == "cpu"


class Shape(NamedTuple):
    """What a language model keeps of a token: `heads` keys and values of `width` numbers in each layer."""

    num_layers: int
    heads: int
    width: int


@dataclass
class Way:
    """One row per slot.

    layers: keys and values, (slots, heads, columns, D) each. visible: (slots, columns) bool. num_columns: how many are
    written. room: (layers, numbers), for products the memory of the keys, which then lie columns last, as products read
    them from end to end. stem: keys and values (heads, L, D) of each layer that stand before the columns of every row,
    and stem_added: (slots, L), 0 where a row sees it, else −inf. mask: (A, 1, S, L + columns), what the opened pass adds
    to its scores.
    """

    layers: Layers
    visible: Tensor
    num_columns: int = 0
    room: Tensor | None = None
    stem: Layers | None = None
    stem_added: Tensor = field(default_factory=lambda: torch.zeros(0, 0))
    mask: Tensor = field(default_factory=lambda: torch.zeros(0))

    @classmethod
    def blank(
        cls, arena: Arena, shape: Shape, slots: int, columns: int, dtype: torch.dtype, device: torch.device
    ) -> "Way":
        """Room for `columns` tokens of `slots` rows."""
        keys, values = (
            arena.take((shape.num_layers, slots, shape.heads, columns, shape.width), dtype, device) for _ in range(2)
        )
        visible = torch.zeros(slots, columns, dtype=torch.bool, device=device)
        if not by_products(device):
            return cls(list(zip(keys, values)), visible)
        return cls([(k[:, :, :0], v) for k, v in zip(keys, values)], visible, room=keys.flatten(1))

    def _make_room(self, columns: int) -> None:
        """Move keys that lie columns last apart, for `columns` of them and a few to spare: with many to spare, reading them
        would be a walk from piece to piece."""
        if self.room is None or columns <= self.layers[0][0].shape[2]:
            return
        columns = min(-(-columns // WIDER) * WIDER, self.visible.shape[1])
        for index, (keys, values) in enumerate(self.layers):
            slots, heads, _, width = values.shape
            written = keys.transpose(2, 3)[..., : self.num_columns].clone()
            apart = self.room[index, : slots * heads * width * columns].view(slots, heads, width, columns)
            apart[..., : self.num_columns] = written
            self.layers[index] = (apart.transpose(2, 3), values)

    def blank_hidden(self) -> None:
        """Zeros in all hidden columns: rows that had retired did not write theirs, and 0 · NaN of fresh memory is NaN."""
        hidden = ~self.visible[:, None, : self.num_columns, None]
        for layer in self.layers:
            for buffer in layer:
                buffer[:, :, : self.num_columns].masked_fill_(hidden, 0.0)

    def fill(self, source: Layers, rows: Tensor, lengths: Tensor) -> None:
        """Copy prefilled contexts: slot s takes row rows[s] of the source, of length lengths[s]."""
        num_columns = source[0][0].shape[2]
        self._make_room(num_columns)
        for own, given in zip(self.layers, source):
            for buffer, states in zip(own, given):
                buffer[:, :, :num_columns] = states[rows]
        self.num_columns = num_columns
        self.visible[:] = torch.arange(self.visible.shape[1], device=self.visible.device) < lengths[:, None]

    def stand_on(self, source: Layers, lengths: Tensor) -> None:
        """Take the one row of `source` as the stem; slot s sees lengths[s] of it. It is read once for all rows."""
        assert self.room is not None, "only products meet a stem"
        self.stem = [(keys[0], values[0]) for keys, values in source]
        width = source[0][0].shape[2]
        self.stem_added = self._added(torch.arange(width, device=lengths.device) < lengths[:, None])

    def open(self, seen: Tensor) -> None:
        """Open columns for a pass that writes seen.shape[1] of them; seen: (A, S) bool, False where a row skips one."""
        begin, (rows, width) = self.num_columns, seen.shape
        self._make_room(begin + width)
        self.visible[:rows, begin : begin + width] = seen
        visible = self.visible[:rows, None, : begin + width].repeat(1, width, 1)
        if width > 1:
            visible[..., begin:] &= torch.ones(width, width, dtype=torch.bool, device=seen.device).tril()
        added = self._added(visible)
        if self.stem is not None:
            added = torch.cat([self.stem_added[:rows, None].expand(-1, width, -1), added], dim=2)
        self.mask = added[:, None]

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
        queries, groups = queries.to(found[0].dtype), queries.shape[1] // keys.shape[1]
        if not by_products(queries.device):
            return F.scaled_dot_product_attention(
                queries, *found, attn_mask=self.mask, scale=scale, enable_gqa=groups > 1
            )
        together = (queries * scale).unflatten(1, (-1, groups)).flatten(2, 3)  # (A, heads, groups · S, D)
        return self._by_products(layer, together, *found).reshape(queries.shape)

    def _by_products(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """queries: (A, heads, S, D), scaled, those of a group one after the other."""
        scores = queries @ keys.transpose(2, 3)
        if self.stem is None:
            return self._weights(scores) @ values
        # All rows' queries meet the stem as if they were one row's.
        stem_keys, stem_values = self.stem[layer]
        on_stem = queries.transpose(0, 1).flatten(1, 2) @ stem_keys.transpose(1, 2)
        on_stem = on_stem.unflatten(1, (len(queries), -1)).transpose(0, 1)
        weights = self._weights(torch.cat([on_stem, scores], dim=3))
        of_stem, own = weights.split([on_stem.shape[3], scores.shape[3]], dim=3)
        from_stem = of_stem.transpose(0, 1).flatten(1, 2) @ stem_values
        return from_stem.unflatten(1, (len(queries), -1)).transpose(0, 1) + own @ values

    def _weights(self, scores: Tensor) -> Tensor:
        groups = scores.shape[2] // self.mask.shape[2]
        return (scores + (self.mask if groups == 1 else self.mask.repeat(1, 1, groups, 1))).softmax(-1)


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
