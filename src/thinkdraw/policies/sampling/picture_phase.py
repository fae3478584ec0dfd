"""The picture phase: begin-of-image and the picture of every row, token by token, all rows at the same token."""

from dataclasses import dataclass

import torch
from torch import Tensor

from thinkdraw.policies.janus import functions
from thinkdraw.policies.sampling import noise
from thinkdraw.policies.sampling.cache import KVCache
from thinkdraw.policies.sampling.distribution import guide
from thinkdraw.policies.sampling.partial import PartialRollouts
from thinkdraw.policies.sampling.session import DecodingSession

# How many last tokens of a context are read here and not before: begin-of-image, and what stands before it, which in the
# thought phase was sampled but never read.
UNREAD = 2


@dataclass
class PicturePhase:
    """Draws the pictures of A rollouts. Codes that the partial rollouts have already are read, not sampled.

    rollouts: (A,) which to draw. contexts: their ids up to begin-of-image. seeds: (A,).
    cache: A rows that hold the contexts, at least all but their last UNREAD tokens; with guidance A rows more, which
    become the unconditional ones.
    """

    session: DecodingSession
    rollouts: Tensor
    contexts: list[list[int]]
    partial: PartialRollouts
    seeds: Tensor
    cache: KVCache

    def __post_init__(self) -> None:
        device, count = self.session.device, len(self.contexts)
        self.longest = max(map(len, self.contexts))
        self.boi_at = torch.tensor([len(ids) - 1 for ids in self.contexts], device=device)  # begin-of-image's positions
        # Of each row the newest code, which is read next, and how many it has.
        self.tokens, self.index = (torch.zeros(count, dtype=torch.int64, device=device) for _ in range(2))
        # Noise is numbered by segment: without a thought the picture is the first.
        self.streams = noise.streams(self.seeds, 0 if self.session.sampling.thought == "off" else 1)
        self.num_codes = self.partial.num_codes[self.rollouts]  # that a prefix has brought

    def run(self) -> None:
        session, begin = self.session, int(self.num_codes.min())
        if begin == session.num_image_tokens:
            return
        session.steps.begin_phase()
        self.index.fill_(begin)
        if session.guided:
            self.prefill_unconditional()
        self.choose(self.read_begin(begin))
        changed = [self.partial.codes, self.partial.code_log_probs, self.tokens, self.index]
        for count in range(begin + 1, session.num_image_tokens):
            columns = session.steps.columns(self.longest + count, self.cache.capacity)
            session.steps.run(("draw", columns), lambda columns=columns: self.step(columns), changed)
        self.partial.num_codes[self.rollouts] = session.num_image_tokens

    def prefill_unconditional(self) -> None:
        """Prefill the unconditional rows, [BOS, pad, pad, …] as long as each context: only the longest, for all of them."""
        count, text = len(self.contexts), self.session.text
        blank = [text.bos, *[text.pad] * (self.longest - UNREAD)]
        prefix = self.cache.prefix_cache(count, len(blank))
        self.session.prefill(prefix, [blank])
        self.cache.share_prefix(prefix, count, self.boi_at - 1)

    def read_begin(self, begin: int) -> Tensor:
        """Read the contexts' last UNREAD tokens and the first `begin` codes, which all rows have.

        Returns the hidden states of the last tokens, from which the next code is chosen.
        """
        session = self.session
        last = torch.tensor([ids[-UNREAD:] for ids in self.contexts], device=session.device)
        ids = torch.cat([last, self.partial.codes[self.rollouts, :begin]], dim=1)
        is_image = (torch.arange(ids.shape[1], device=session.device) >= UNREAD).expand(ids.shape)
        if session.guided:
            ids, is_image = torch.cat([ids, session.text.blanked(ids, is_image)]), is_image.repeat(2, 1)
        positions = self.boi_at[:, None] + torch.arange(1 - UNREAD, ids.shape[1] + 1 - UNREAD, device=session.device)
        return self.forward(functions.embed(session.model, ids, is_image), positions, self.longest + begin)

    def step(self, columns: int) -> None:
        """Read each row's newest code, and write the one that follows."""
        embeddings = self.session.embedded_codes[self.tokens][:, None]
        if self.session.guided:
            embeddings = embeddings.repeat(2, 1, 1)
        self.choose(self.forward(embeddings, (self.boi_at + self.index)[:, None], columns))

    def forward(self, embeddings: Tensor, positions: Tensor, columns: int) -> Tensor:
        """Hidden states of the last tokens, (A, H), with guidance (2 A, H); positions (A, S) are those of both halves."""
        if self.session.guided:
            positions = positions.repeat(2, 1)
        return self.session.forward(self.cache, embeddings, positions, columns)[:, -1]

    def choose(self, hidden: Tensor) -> None:
        """Write the code that follows in each row, or take the one that is there."""
        session, partial, rollouts, index = self.session, self.partial, self.rollouts, self.index
        log_probs, allowed = session.distribution(self.logits(hidden))
        keys = None if session.sampling.greedy else noise.keys(self.streams, index)
        tokens, chosen = session.choose(log_probs, keys)
        free = self.num_codes <= index
        tokens = torch.where(free, tokens, partial.codes[rollouts, index])
        partial.codes[rollouts, index] = tokens
        partial.code_log_probs[rollouts, index] = torch.where(free, chosen, partial.code_log_probs[rollouts, index])
        if allowed is not None:
            partial.note_allowed(rollouts[free], True, index[free], allowed[free])
        self.tokens.copy_(tokens)
        self.index += 1

    def logits(self, hidden: Tensor) -> Tensor:
        """Guided logits (A, codes). Guidance comes before the head's last layer, which is linear: half its products."""
        model, features = self.session.model, functions.image_features(self.session.model, hidden)
        if self.session.guided:
            conditional, unconditional = features.chunk(2)
            features = guide(conditional, unconditional, self.session.sampling.guidance_scale)
        return functions.feature_logits(model, features)
