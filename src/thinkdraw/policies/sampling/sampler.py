"""The sampler: all thoughts, then all pictures, from any prefix.

Here is the order of work, and how many rows are decoded at a time. `thought_phase.py` and `picture_phase.py` have
the loops over tokens. The recorded log-probs equal those that `janus/likelihood.py` computes for training, to float
tolerance.
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

    contexts: each rollout's ids before its first token, with begin-of-image for `off`.
    seeds: (B,).
    rewritten: for `rewrite`, maps thoughts' ids to the fresh contexts of their pictures, with begin-of-image.
    rows: the most rows of the KV cache. With guidance a rollout takes two in the picture phase.
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

        Where memory does not hold `rows` rows, it goes on with fewer. Which rollouts share a batch changes rounding
        only.
        """
        order, caches = torch.arange(len(self.contexts), device=self.seeds.device), []
        if self.session.sampling.thought != "off":
            (order, caches), self.rows = memory.shrink_to_fit(self.write_thoughts, self.rows, "rows at a time")
        contexts = self.picture_contexts()
        # The thoughts' cache is popped, so only the first attempt has it. If memory runs out, the cache is freed and the
        # next attempt prefills the contexts.
        memory.in_chunks(
            lambda rollouts: self.draw_pictures(rollouts, contexts, caches.pop() if caches else None),
            order,
            max(1, self.rows // self.session.rows_per_rollout),
        )
        self.session.close()

    def write_thoughts(self, rows: int) -> tuple[Tensor, list[KVCache]]:
        """Write all thoughts, in up to `rows` rows.

        Returns the order in which to draw (B,), and the thoughts' KV cache if pictures can go on in it. The cache's
        rows are then in that order. Otherwise the list is empty, and pictures prefill their contexts.
        """
        session, count = self.session, len(self.contexts)
        order, waiting = torch.arange(count, device=self.seeds.device), unfinished(session, self.partial)
        if not waiting:
            return order, []
        # Pictures go on in this cache if every thought is in it and stays there, and if it has rows for all pictures.
        rows_to_draw = session.rows_per_rollout * count
        all_stay = session.sampling.thought == "inline" and len(waiting) == count and rows_to_draw <= rows
        slots = min(rows, len(waiting))
        cache = session.new_cache(rows_to_draw if all_stay else slots, session.capacity(self.contexts, session.budget))
        phase = ThoughtPhase(session, self.contexts, self.partial, self.seeds, cache, slots, deque(waiting))
        phase.run()
        return (phase.rollouts, [cache]) if all_stay else (order, [])

    def picture_contexts(self) -> Ids:
        """Return the ids before each picture, with begin-of-image."""
        text, partial = self.session.text, self.partial
        match self.session.sampling.thought:
            case "off":
                return self.contexts
            case "rewrite":
                return self.rewritten(partial.texts())
            case "inline":
                # Begin-of-image ends a thought. Where the budget or end-of-text ended it instead, begin-of-image is
                # forced, and not trained.
                partial.force_text((partial.last_text() != text.boi).nonzero().flatten(), text.boi)
                return [ids + thought for ids, thought in zip(self.contexts, partial.texts())]

    def draw_pictures(self, rollouts: Tensor, contexts: Ids, cache: KVCache | None) -> None:
        """Draw the pictures of some rollouts.

        cache: holds their thoughts, in their order. None = prefill the contexts.
        """
        session, contexts = self.session, [contexts[i] for i in rollouts.tolist()]
        if cache is None:
            cache = session.new_cache(session.rows_per_rollout * len(contexts), session.capacity(contexts, 0))
            session.prefill(cache, [ids[:-1] for ids in contexts])
        PicturePhase(session, rollouts, contexts, self.partial, self.seeds[rollouts], cache).run()
