"""The thought phase: every rollout that has not finished its thought writes it, in slots that are filled again as they fall free."""

from collections import deque
from dataclasses import dataclass

import torch
from torch import Tensor

from thinkdraw.policies.janus import network
from thinkdraw.policies.sampling import noise
from thinkdraw.policies.sampling.cache import Cache
from thinkdraw.policies.sampling.partial import Canvas
from thinkdraw.policies.sampling.session import Reader

REFILLED_FRAC = 1 / 8  # of the slots have to be free: reading a few contexts takes as long as a step of all slots
STEPS_UNSEEN = 8  # between two looks at which thoughts are done, where each look waits for a GPU


def unfinished(reader: Reader, canvas: Canvas) -> list[int]:
    """Rollouts whose thoughts need a further token, begin-of-image aside."""
    last = canvas.last_text()
    finished = (last == reader.text.eos) | (last == reader.text.boi) | (canvas.text_len >= reader.budget)
    return (~finished).nonzero().flatten().tolist()


@dataclass
class Thinking:
    """contexts: each rollout's ids before the thought. seeds: (B,), of all rollouts. cache: a row per slot, or more.
    waiting: rollouts that have to think, as many as there are slots or more, so that no two slots ever hold the same one.

    Slot s holds rollout rollouts[s]; slots 0 .. num_active − 1 think, and are a view of the cache and not a copy. tokens,
    positions: (slots,) the token that each reads next and where it stands; of a thought that is done its last token, which it
    may read again without harm.
    """

    reader: Reader
    contexts: list[list[int]]
    canvas: Canvas
    seeds: Tensor
    cache: Cache
    slots: int
    waiting: deque[int]
    num_active: int = 0

    def __post_init__(self) -> None:
        def blank(dtype: torch.dtype) -> Tensor:
            return torch.zeros(self.slots, dtype=dtype, device=self.reader.device)

        self.rollouts, self.tokens, self.positions = (blank(torch.int64) for _ in range(3))
        self.done = blank(torch.bool)
        self.streams = noise.streams(self.seeds, 0)
        self.columns = 0  # that hold all tokens read so far

    def run(self) -> None:
        self.reader.replays.forget()
        while self.waiting or self.num_active:
            free = self.slots - self.num_active
            if self.waiting and (not self.num_active or free >= REFILLED_FRAC * self.slots):
                self.admit(free)
            else:
                self.steps()
            self.retire()

    def admit(self, free: int) -> None:
        """Let up to `free` waiting rollouts into the slots behind those that think."""
        new = [self.waiting.popleft() for _ in range(min(free, len(self.waiting)))]
        begin, end = self.num_active, self.num_active + len(new)
        slots, rollouts = slice(begin, end), torch.tensor(new, device=self.reader.device)
        contexts = [self.contexts[i] + text for i, text in zip(new, self.canvas.texts(rollouts))]
        lengths, hidden = self.reader.read(self.cache.part(begin, end), contexts)
        self.rollouts[slots], self.done[slots] = rollouts, False
        self.positions[slots] = lengths - 1  # of the last token read
        self.columns = max(self.columns, max(map(len, contexts)))
        self.num_active = end
        self.choose(hidden, slots)

    def steps(self) -> None:
        """One more token for every slot that thinks, or several where looking in between would cost time."""
        rows, times = self.num_active, 1
        if self.reader.waits:  # and few different numbers of rows, each recorded once
            rows, times = min(self.slots, 1 << (rows - 1).bit_length()), STEPS_UNSEEN
        for _ in range(times):
            self.columns += 1
            columns = self.reader.columns_read(self.columns, self.cache.room)
            changed = [self.canvas.text, self.canvas.text_len, self.canvas.text_log_probs, self.canvas.text_mask,
                       self.tokens, self.positions, self.done]  # fmt: skip
            self.reader.replays.run(("think", rows, columns), lambda columns=columns: self.step(rows, columns), changed)

    def step(self, rows: int, columns: int) -> None:
        slots = slice(0, rows)
        embeddings = self.reader.model.get_input_embeddings()(self.tokens[slots, None])
        hidden = self.reader.forward(self.cache, embeddings, self.positions[slots, None], columns)[:, -1]
        self.choose(hidden, slots)

    def choose(self, hidden: Tensor, slots: slice) -> None:
        """Write the token that follows in each of the slots whose thought is not done."""
        reader, canvas, rollouts = self.reader, self.canvas, self.rollouts[slots]
        index, goes_on = canvas.text_len[rollouts], ~self.done[slots]
        logits = network.text_logits(reader.model, hidden)
        log_probs, kept = reader.distribution(logits, suppressed=reader.suppressed)
        keys = None if reader.sampling.greedy else noise.keys(self.streams[:, rollouts], index)
        tokens, chosen = reader.choose(log_probs, keys)
        if kept is not None:
            canvas.keep(rollouts[goes_on], False, index[goes_on], kept[goes_on])
        canvas.write_text(rollouts, tokens, chosen, goes_on)
        self.tokens[slots] = torch.where(goes_on, tokens, self.tokens[slots])
        self.positions[slots] += goes_on
        ends = (tokens == reader.text.eos) | (tokens == reader.text.boi) | (index + 1 >= reader.budget)
        self.done[slots] |= ends

    def retire(self) -> None:
        """Move slots that are done behind the others, with what they have read."""
        done = self.done[: self.num_active]
        remaining = int((~done).sum())
        holes = done[:remaining].nonzero().flatten()
        if len(holes):
            movers = (~done[remaining:]).nonzero().flatten() + remaining
            here, there = torch.cat([holes, movers]), torch.cat([movers, holes])
            self.cache.copy(here, there, min(self.columns, self.cache.room))
            for state in (self.rollouts, self.tokens, self.positions, self.done):
                state[here] = state[there]
        if remaining < self.num_active and remaining:
            self.columns = int(self.positions[:remaining].max())
        self.num_active = remaining
