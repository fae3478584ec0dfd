"""Think token by token, then draw, from any prefix: the order of the phases, and how many rollouts take part at a time.

The log-probs that it notes are those of `janus/likelihood.py`, to float tolerance.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from thinkdraw.policies.sampling import memory
from thinkdraw.policies.sampling.cache import KVCache
from thinkdraw.policies.sampling.partial import PartialRollouts
from thinkdraw.policies.sampling.picture_phase import PicturePhase
from thinkdraw.policies.sampling.session import DecodingSession, Ids
from thinkdraw.policies.sampling.thought_phase import ThoughtPhase, unfinished


@dataclass
class Sampler:
    """Completes partial rollouts: `run` writes the thought and the picture of each.

    contexts: each rollout's ids before its first token, begin-of-image included for `off`. seeds: (B,). redraw: from
    thoughts' ids to the fresh contexts of `rewrite`, begin-of-image included. rows: of the KV cache, at most.
    """

    session: DecodingSession
    contexts: Ids
    partial: PartialRollouts
    seeds: Tensor
    redraw: Callable[[Ids], Ids]
    rows: int

    @torch.inference_mode()
    def run(self) -> None:
        """Where memory does not hold `rows` rows, with fewer; which and how many go together changes rounding only."""
        order, held = torch.arange(len(self.contexts), device=self.seeds.device), []
        if self.session.sampling.thought != "off":
            (order, held), self.rows = memory.until_it_fits(self.think, self.rows, "rows at a time")
        contexts = self.picture_contexts()
        # Memory that runs out takes the thoughts' cache along: the next attempt reads the contexts anew.
        memory.in_parts(
            lambda rollouts: self.draw(rollouts, contexts, held.pop() if held else None),
            order,
            max(1, self.rows // self.session.rows_per_rollout),
        )
        self.session.close()

    def think(self, rows: int) -> tuple[Tensor, list[KVCache]]:
        """Write all thoughts, in up to `rows` rows.

        Returns the order in which to draw (B,), and the cache if it holds every rollout's thought, in that order.
        """
        session, count = self.session, len(self.contexts)
        order, waiting = torch.arange(count, device=self.seeds.device), unfinished(session, self.partial)
        if not waiting:
            return order, []
        rows_to_draw = session.rows_per_rollout * count
        all_stay = session.sampling.thought == "inline" and len(waiting) == count and rows_to_draw <= rows
        slots = min(rows, len(waiting))
        cache = session.new_cache(rows_to_draw if all_stay else slots, session.capacity(self.contexts, session.budget))
        phase = ThoughtPhase(session, self.contexts, self.partial, self.seeds, cache, slots, deque(waiting))
        phase.run()
        return (phase.rollouts, [cache]) if all_stay else (order, [])

    def picture_contexts(self) -> Ids:
        """What stands before each picture, begin-of-image included."""
        text, partial = self.session.text, self.partial
        match self.session.sampling.thought:
            case "off":
                return self.contexts
            case "rewrite":
                return self.redraw(partial.texts())
            case "inline":
                partial.force_text((partial.last_text() != text.boi).nonzero().flatten(), text.boi)
                return [ids + thought for ids, thought in zip(self.contexts, partial.texts())]

    def draw(self, rollouts: Tensor, contexts: Ids, cache: KVCache | None) -> None:
        """cache: the one that these rollouts' thoughts were written in, in their order."""
        session, contexts = self.session, [contexts[i] for i in rollouts.tolist()]
        if cache is None:
            cache = session.new_cache(session.rows_per_rollout * len(contexts), session.capacity(contexts, 0))
            session.prefill(cache, [ids[:-1] for ids in contexts])
        PicturePhase(session, rollouts, contexts, self.partial, self.seeds[rollouts], cache).run()
