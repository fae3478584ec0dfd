"""Think token by token, then draw, from any prefix: the order of the phases, and how many rollouts take part at a time.

The likelihoods that it notes are those of `scorer.py`, to float tolerance.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from thinkdraw.policies.sampling import memory
from thinkdraw.policies.sampling.cache import Cache
from thinkdraw.policies.sampling.drawing import Drawing
from thinkdraw.policies.sampling.partial import Canvas
from thinkdraw.policies.sampling.session import Ids, Reader
from thinkdraw.policies.sampling.thinking import Thinking, unfinished


@dataclass
class Sampler:
    """Continues a canvas: `run` writes the thought and the picture of each rollout.

    contexts: each rollout's ids before its first token, begin-of-image included for `off`. seeds: (B,). redraw: from
    thoughts' ids to the fresh contexts of `rewrite`, begin-of-image included. rows: of the cache, at most.
    """

    reader: Reader
    contexts: Ids
    canvas: Canvas
    seeds: Tensor
    redraw: Callable[[Ids], Ids]
    rows: int

    @torch.inference_mode()
    def run(self) -> None:
        """Where memory does not hold `rows` rows, with fewer; which and how many go together changes rounding only."""
        thought = self.reader.sampling.thought
        order, held = torch.arange(len(self.contexts), device=self.seeds.device), []
        if thought != "off":
            (order, held), self.rows = memory.until_it_fits(self.think, self.rows, "rows at a time")
        contexts = self.opened()
        # Memory that runs out takes what thinking left along: the next attempt reads the contexts anew.
        memory.in_parts(
            lambda rollouts: self.draw(rollouts, contexts, held.pop() if held else None),
            order,
            max(1, self.rows // self.reader.ways),
        )

    def think(self, rows: int) -> tuple[Tensor, list[Cache]]:
        """Write all thoughts; the order in which to draw (B,), and the cache if it still holds every rollout, in that order."""
        reader, count = self.reader, len(self.contexts)
        order, waiting = torch.arange(count, device=self.seeds.device), unfinished(reader, self.canvas)
        if not waiting:
            return order, []
        all_stay = reader.sampling.thought == "inline" and len(waiting) == count and reader.ways * count <= rows
        slots = min(rows, len(waiting))
        reader.arena.reset()
        cache = reader.blank(reader.ways * slots if all_stay else slots, reader.columns(self.contexts, reader.budget))
        thinking = Thinking(reader, self.contexts, self.canvas, self.seeds, cache, slots, deque(waiting))
        thinking.run()
        return (thinking.rollouts, [cache]) if all_stay else (order, [])

    def opened(self) -> Ids:
        """The contexts that pictures are drawn in, begin-of-image included."""
        text, canvas = self.reader.text, self.canvas
        match self.reader.sampling.thought:
            case "off":
                return self.contexts
            case "rewrite":
                return self.redraw(canvas.texts())
            case "inline":
                canvas.force_text((canvas.last_text() != text.boi).nonzero().flatten(), text.boi)
                return [ids + thought for ids, thought in zip(self.contexts, canvas.texts())]

    def draw(self, rollouts: Tensor, contexts: Ids, cache: Cache | None) -> None:
        """cache: what thinking left of these rollouts, in their order."""
        reader, contexts = self.reader, [contexts[i] for i in rollouts.tolist()]
        if cache is None:
            reader.arena.reset()
            cache = reader.blank(reader.ways * len(contexts), reader.columns(contexts, 0))
            reader.read(cache, [ids[:-1] for ids in contexts])
        Drawing(reader, rollouts, contexts, self.canvas, self.seeds[rollouts], cache).run()
