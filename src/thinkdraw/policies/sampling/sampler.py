"""Sampling: all thoughts, then all pictures, from any prefix; here is the order, and how many rows are decoded at a time.

`thought_phase.py` and `picture_phase.py` have the loops over tokens. The log-probs that are noted are those that
`janus/likelihood.py` computes for training, to float tolerance.
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

    contexts: each rollout's ids before its first token, begin-of-image included for `off`. seeds: (B,).
    rewritten: for `rewrite`, thoughts' ids → the fresh contexts that their pictures are drawn in, begin-of-image included.
    rows: of the KV cache, at most; with guidance a rollout takes two in the picture phase.
    """

    session: DecodingSession
    contexts: Ids
    partial: PartialRollouts
    seeds: Tensor
    rewritten: Callable[[Ids], Ids]
    rows: int

    @torch.inference_mode()
    def run(self) -> None:
        """Write thoughts, then pictures.

        Where memory does not hold `rows` rows, it goes on with fewer: which and how many go together changes rounding only.
        """
        order, caches = torch.arange(len(self.contexts), device=self.seeds.device), []
        if self.session.sampling.thought != "off":
            (order, caches), self.rows = memory.until_it_fits(self.think, self.rows, "rows at a time")
        contexts = self.picture_contexts()
        # The thoughts' cache is popped, so that only the first attempt has it: where memory runs out, the next attempt
        # frees it and prefills the contexts anew.
        memory.in_parts(
            lambda rollouts: self.draw(rollouts, contexts, caches.pop() if caches else None),
            order,
            max(1, self.rows // self.session.rows_per_rollout),
        )
        self.session.close()

    def think(self, rows: int) -> tuple[Tensor, list[KVCache]]:
        """Write all thoughts, in up to `rows` rows.

        Returns the order in which to draw (B,), and, where pictures can go on in the thoughts' KV cache, that cache, whose
        rows are in that order; else no cache, and pictures prefill their contexts.
        """
        session, count = self.session, len(self.contexts)
        order, waiting = torch.arange(count, device=self.seeds.device), unfinished(session, self.partial)
        if not waiting:
            return order, []
        # Pictures go on in this cache if each thought is in it and stays there, and it has room for all pictures at once.
        rows_to_draw = session.rows_per_rollout * count
        all_stay = session.sampling.thought == "inline" and len(waiting) == count and rows_to_draw <= rows
        slots = min(rows, len(waiting))
        cache = session.new_cache(rows_to_draw if all_stay else slots, session.capacity(self.contexts, session.budget))
        phase = ThoughtPhase(session, self.contexts, self.partial, self.seeds, cache, slots, deque(waiting))
        phase.run()
        return (phase.rollouts, [cache]) if all_stay else (order, [])

    def picture_contexts(self) -> Ids:
        """The ids that each picture is drawn after, begin-of-image included."""
        text, partial = self.session.text, self.partial
        match self.session.sampling.thought:
            case "off":
                return self.contexts
            case "rewrite":
                return self.rewritten(partial.texts())
            case "inline":
                # Begin-of-image ends a thought; where the budget or end-of-text ended it, it is forced, and not trained on.
                partial.force_text((partial.last_text() != text.boi).nonzero().flatten(), text.boi)
                return [ids + thought for ids, thought in zip(self.contexts, partial.texts())]

    def draw(self, rollouts: Tensor, contexts: Ids, cache: KVCache | None) -> None:
        """Draw the pictures of some rollouts. cache: that holds their thoughts, in their order; None prefills contexts."""
        session, contexts = self.session, [contexts[i] for i in rollouts.tolist()]
        if cache is None:
            cache = session.new_cache(session.rows_per_rollout * len(contexts), session.capacity(contexts, 0))
            session.prefill(cache, [ids[:-1] for ids in contexts])
        PicturePhase(session, rollouts, contexts, self.partial, self.seeds[rollouts], cache).run()
