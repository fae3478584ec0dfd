"""The thought phase, by continuous batching.

When a thought ends, a waiting one takes over its row of the KV cache, its *slot*.
"""

from collections import deque
from dataclasses import dataclass

import torch
from torch import Tensor

from thinkdraw.policies.sampling import noise
from thinkdraw.policies.sampling.cache import KVCache
from thinkdraw.policies.sampling.partial import PartialRollouts
from thinkdraw.policies.sampling.session import DecodingSession

# Share of the slots that must be free before they are refilled: prefilling a few contexts takes as long as a decode step
# of all slots.
REFILL_FRAC = 1 / 8
STEPS_BETWEEN_CHECKS = 8  # decode steps between two checks for finished thoughts, where a check waits for a GPU


def unfinished(session: DecodingSession, partial: PartialRollouts) -> list[int]:
    """List the rollouts whose thoughts need another token, begin-of-image aside."""
    last = partial.last_text()
    finished = (last == session.text.eos) | (last == session.text.boi) | (partial.text_len >= session.budget)
    return (~finished).nonzero().flatten().tolist()


@dataclass
class ThoughtPhase:
    """Writes the thoughts of the waiting rollouts, `slots` at a time.

    contexts: each rollout's ids before the thought.
    seeds: (B,), of all rollouts.
    cache: one row per slot, or more.
    waiting: rollouts that need a thought. There are at least as many as slots, so that no two slots hold the same
        one.

    Slot s is row s of the cache and holds rollout rollouts[s]. Slots 0 .. num_active − 1 are in use. tokens and
    positions, (slots,), are the token that each slot reads next and its position. A finished thought reads its last
    token again and again until it is retired, which changes nothing.
    """

    session: DecodingSession
    contexts: list[list[int]]
    partial: PartialRollouts
    seeds: Tensor
    cache: KVCache
    slots: int
    waiting: deque[int]
    num_active: int = 0

    def __post_init__(self) -> None:
        def blank(dtype: torch.dtype) -> Tensor:
            return torch.zeros(self.slots, dtype=dtype, device=self.session.device)

        self.rollouts, self.tokens, self.positions = (blank(torch.int64) for _ in range(3))
        self.done = blank(torch.bool)
        self.streams = noise.segment_streams(self.seeds, 0)
        self.columns = 0  # first columns of the cache that hold all tokens read so far

    def run(self) -> None:
        """Write all thoughts, into the partial rollouts."""
        self.session.steps.begin_phase()
        while self.waiting or self.num_active:
            free = self.slots - self.num_active
            if self.waiting and (not self.num_active or free >= REFILL_FRAC * self.slots):
                self.admit(free)
            else:
                self.steps()
            self.retire()

    def admit(self, free: int) -> None:
        """Prefill up to `free` waiting rollouts, and choose their first tokens."""
        new = [self.waiting.popleft() for _ in range(min(free, len(self.waiting)))]
        begin, end = self.num_active, self.num_active + len(new)
        slots, rollouts = slice(begin, end), torch.tensor(new, device=self.session.device)
        contexts = [self.contexts[i] + text for i, text in zip(new, self.partial.texts(rollouts))]
        lengths, hidden = self.session.prefill(self.cache.part(begin, end), contexts)
        self.rollouts[slots], self.done[slots] = rollouts, False
        self.positions[slots] = lengths - 1  # of the last token read
        self.columns = max(self.columns, max(map(len, contexts)))
        self.num_active = end
        self.choose(hidden, slots)

    def steps(self) -> None:
        """Decode one more token in every slot in use, or several on a GPU.

        Every check for finished thoughts waits for the GPU, so it is made only now and then.
        """
        rows, times = self.num_active, 1
        if self.session.asynchronous:  # a power of two, because each number of rows is a CUDA graph of its own
            rows, times = min(self.slots, 1 << (rows - 1).bit_length()), STEPS_BETWEEN_CHECKS
        for _ in range(times):
            self.columns += 1
            columns = self.session.steps.columns(self.columns, self.cache.capacity)
            changed = [self.partial.text, self.partial.text_len, self.partial.text_log_probs, self.partial.text_mask,
                       self.tokens, self.positions, self.done]  # fmt: skip
            self.session.steps.run(("think", rows, columns), lambda columns=columns: self.step(rows, columns), changed)

    def step(self, rows: int, columns: int) -> None:
        """Read the next token of the first `rows` slots, and choose the ones that follow.

        columns: how many attention reads.
        """
        slots = slice(0, rows)
        embeddings = self.session.model.get_input_embeddings()(self.tokens[slots, None])
        hidden = self.session.forward(self.cache, embeddings, self.positions[slots, None], columns)[:, -1]
        self.choose(hidden, slots)

    def choose(self, hidden: Tensor, slots: slice) -> None:
        """Choose and write the next token of each slot whose thought is not finished.

        hidden: (A, H), of the last tokens.
        """
        session, partial, rollouts = self.session, self.partial, self.rollouts[slots]
        index, goes_on = partial.text_len[rollouts], ~self.done[slots]
        logits = session.heads.text_logits(hidden)
        log_probs, allowed = session.distribution(logits, suppressed=session.suppressed)
        keys = None if session.sampling.greedy else noise.token_keys(self.streams[:, rollouts], index)
        tokens, chosen = session.choose(log_probs, keys)
        if allowed is not None:
            partial.note_allowed(rollouts[goes_on], False, index[goes_on], allowed[goes_on])
        partial.write_text(rollouts, tokens, chosen, goes_on)
        self.tokens[slots] = torch.where(goes_on, tokens, self.tokens[slots])
        self.positions[slots] += goes_on
        ends = (tokens == session.text.eos) | (tokens == session.text.boi) | (index + 1 >= session.budget)
        self.done[slots] |= ends

    def retire(self) -> None:
        """Free the slots of finished thoughts.

        The others move to the front, with their rows of the cache.
        """
        done = self.done[: self.num_active]
        remaining = int((~done).sum())
        holes = done[:remaining].nonzero().flatten()
        if len(holes):
            movers = (~done[remaining:]).nonzero().flatten() + remaining
            # Rows are swapped, not just moved: where pictures go on in this cache, a finished thought's row is needed.
            targets, sources = torch.cat([holes, movers]), torch.cat([movers, holes])
            self.cache.copy(targets, sources, min(self.columns, self.cache.capacity))
            for state in (self.rollouts, self.tokens, self.positions, self.done):
                state[targets] = state[sources]
        if remaining < self.num_active and remaining:
            self.columns = int(self.positions[:remaining].max())
        self.num_active = remaining
