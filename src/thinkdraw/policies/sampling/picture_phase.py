"""The picture phase: begin-of-image and the picture of every row, token by token.

All rows are at the same image token.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from thinkdraw.policies.janus import functions
from thinkdraw.policies.sampling import noise
from thinkdraw.policies.sampling.cache import KVCache
from thinkdraw.policies.sampling.distribution import guide
from thinkdraw.policies.sampling.partial import PartialRollouts
from thinkdraw.policies.sampling.session import DecodingSession

# Last tokens of a context that are read here: begin-of-image, and the token before it. The thought phase samples that
# token but never reads it.
UNREAD = 2


@dataclass
class PicturePhase:
    """Draws the pictures of A rollouts; codes of a prefix are read, not sampled.

    rollouts: (A,), index of each in the partial rollouts.
    contexts: their ids up to begin-of-image.
    seeds: (A,).
    cache: A rows that hold the contexts, except for up to UNREAD last tokens. With guidance it has A rows more,
        which become the unconditional ones.
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
        self.boi_positions = torch.tensor(
            [len(ids) - 1 for ids in self.contexts], device=device
        )  # positions of begin-of-image
        # Each row's newest code, which is read next, and its number of codes.
        self.tokens, self.index = (torch.zeros(count, dtype=torch.int64, device=device) for _ in range(2))
        # Noise is hashed by segment: without a thought the picture is segment 0.
        self.streams = noise.segment_streams(self.seeds, 0 if self.session.sampling.thought == "off" else 1)
        self.num_codes = self.partial.num_codes[self.rollouts]  # brought by a prefix

    def run(self) -> None:
        """Draw all pictures, into the partial rollouts."""
        session, begin = self.session, int(self.num_codes.min())
        if begin == session.num_image_tokens:
            return
        session.steps.begin_phase()
        self.index.fill_(begin)
        if session.guided:
            self.prefill_unconditional()
        self.choose(self.read_prefix(begin))
        changed = [self.partial.codes, self.partial.code_log_probs, self.tokens, self.index]
        for count in range(begin + 1, session.num_image_tokens):
            columns = session.steps.columns(self.longest + count, self.cache.capacity)
            session.steps.run(("draw", columns), lambda columns=columns: self.step(columns), changed)
        self.partial.num_codes[self.rollouts] = session.num_image_tokens

    def prefill_unconditional(self) -> None:
        """Prefill the unconditional rows of guidance: [BOS, pad, pad, …].

        Each is as long as its context. Only the longest is computed, and all rows share it as a prefix.
        """
        count, text = len(self.contexts), self.session.text
        blank = [text.bos, *[text.pad] * (self.longest - UNREAD)]
        prefix = self.cache.prefix_cache(count, len(blank))
        self.session.prefill(prefix, [blank])
        self.cache.share_prefix(prefix, count, self.boi_positions - 1)

    def read_prefix(self, begin: int) -> Tensor:
        """Read the contexts' last UNREAD tokens and the first `begin` codes.

        All rows have these codes. Returns the hidden states from which the next code is chosen.
        """
        session = self.session
        last = torch.tensor([ids[-UNREAD:] for ids in self.contexts], device=session.device)
        ids = torch.cat([last, self.partial.codes[self.rollouts, :begin]], dim=1)
        is_image = (torch.arange(ids.shape[1], device=session.device) >= UNREAD).expand(ids.shape)
        if session.guided:
            ids, is_image = torch.cat([ids, session.text.blanked(ids, is_image)]), is_image.repeat(2, 1)
        positions = self.boi_positions[:, None] + torch.arange(
            1 - UNREAD, ids.shape[1] + 1 - UNREAD, device=session.device
        )
        return self.forward(functions.embed(session.model, ids, is_image), positions, self.longest + begin)

    def step(self, columns: int) -> None:
        """Read each row's newest code, and write the next one."""
        embeddings = self.session.embedded_codes[self.tokens][:, None]
        if self.session.guided:
            embeddings = embeddings.repeat(2, 1, 1)
        self.choose(self.forward(embeddings, (self.boi_positions + self.index)[:, None], columns))

    def forward(self, embeddings: Tensor, positions: Tensor, columns: int) -> Tensor:
        """Run the language model on new tokens; return the last token's hidden states."""
        if self.session.guided:
            positions = positions.repeat(2, 1)
        return self.session.forward(self.cache, embeddings, positions, columns)[:, -1]

    def choose(self, hidden: Tensor) -> None:
        """Write each row's next code, or keep the one that a prefix brought."""
        session, partial, rollouts, index = self.session, self.partial, self.rollouts, self.index
        log_probs, allowed = session.distribution(self.logits(hidden))
        keys = None if session.sampling.greedy else noise.token_keys(self.streams, index)
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
        """Compute guided logits (A, codes).

        Guidance is applied before the head's last layer. That layer is linear, so the result is the same with half
        the products.
        """
        features = self.session.heads.image_features(hidden)
        if self.session.guided:
            conditional, unconditional = features.chunk(2)
            features = guide(conditional, unconditional, self.session.sampling.guidance_scale)
        return self.session.heads.image_logits(features)
