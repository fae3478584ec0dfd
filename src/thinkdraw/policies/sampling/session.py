"""Reads tokens for every row, and chooses those that follow: what the thought phase and the picture phase share."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import Tensor
from transformers import JanusForConditionalGeneration

from thinkdraw.policies.fast.buffer_pool import Arena
from thinkdraw.policies.fast.cuda_graphs import Replays, Step
from thinkdraw.policies.janus import network
from thinkdraw.policies.janus.text import JanusText
from thinkdraw.policies.sampling import memory, noise
from thinkdraw.policies.sampling.cache import Cache
from thinkdraw.policies.sampling.decoder import Decoder
from thinkdraw.policies.sampling.distribution import kept_set, log_distribution
from thinkdraw.policies.sampling.partial import pad_rows
from thinkdraw.types import Sampling

Ids = list[list[int]]
COLUMNS_READ = 128  # in a recorded step a multiple of it


@dataclass
class Reader:
    """Reads the weights when it is made.

    record: what makes a step of a phase one that is replayed, see `replay.py`.
    """

    model: JanusForConditionalGeneration
    text: JanusText
    sampling: Sampling
    num_image_tokens: int
    device: torch.device
    arena: Arena
    record: Callable[[Step], Step] | None = None

    def __post_init__(self) -> None:
        self.guided = self.sampling.guidance_scale != 1.0
        self.ways = 2 if self.guided else 1
        self.budget = 0 if self.sampling.thought == "off" else self.sampling.max_thought_tokens
        self.suppressed = self.text.suppressed.to(self.device)
        self.decoder = Decoder(self.model)
        self.kernels = self.decoder.kernels
        # Of keys and values. Torch's attention of one query takes a quarter longer in bf16 on a CPU.
        by_torch = self.kernels is None and self.device.type == "cpu"
        self.cached_in = torch.float32 if by_torch else self.decoder.dtype
        # Whether this program runs ahead of the device, and waits where it looks at a number.
        self.waits = self.device.type != "cpu" or self.record is not None
        # What top-k and top-p leave differs in size from step to step.
        cuts = self.sampling.top_k is not None or self.sampling.top_p is not None
        self.replays = Replays(None if cuts else self.record)

    def columns(self, contexts: Ids, thought_tokens: int) -> int:
        """That each row of a cache needs."""
        return memory.columns_of(max(map(len, contexts), default=0), thought_tokens, self.num_image_tokens)

    def blank(self, rows: int, columns: int) -> Cache:
        return Cache.blank(self.arena, self.decoder.shape, rows, columns, self.cached_in, self.device, self.kernels)

    def read(self, cache: Cache, contexts: Ids) -> tuple[Tensor, Tensor]:
        """Let the first rows of a cache read a context each; their lengths (A,) and last hidden states (A, H). Equal contexts
        are read once."""
        unique = list(dict.fromkeys(map(tuple, contexts)))
        places = {ids: i for i, ids in enumerate(unique)}
        ids, lengths = pad_rows([list(ids) for ids in unique], self.text.pad, self.device)
        positions = torch.arange(ids.shape[1], device=self.device).expand(ids.shape)
        hidden = self.forward(cache, self.model.get_input_embeddings()(ids), positions, ids.shape[1])
        last = hidden[torch.arange(len(ids), device=self.device), lengths - 1]
        rows = torch.tensor([places[tuple(ids)] for ids in contexts], device=self.device)
        if len(unique) < len(contexts):
            cache.copy(torch.arange(len(rows), device=self.device), rows, ids.shape[1])
        return lengths[rows], last[rows]

    def forward(self, cache: Cache, embeddings: Tensor, positions: Tensor, columns: int) -> Tensor:
        """Hidden states (R, S, H) of new tokens of the cache's first R rows, at positions (R, S) below `columns`."""
        cache.open(positions, columns)
        return self.decoder(embeddings, positions, cache)

    def columns_read(self, needed: int, room: int) -> int:
        """How many columns torch's attention reads: where steps are recorded, few different numbers."""
        return needed if self.replays.record is None else min(room, -(-needed // COLUMNS_READ) * COLUMNS_READ)

    def choose(self, log_probs: Tensor, keys: Tensor | None) -> tuple[Tensor, Tensor]:
        """(tokens, their log-probs), each (A,). keys: (2, A) of `noise.keys`, None = the likeliest."""
        if keys is None:
            tokens = log_probs.argmax(-1)
        else:
            tokens = noise.draw(log_probs, noise.race(keys, log_probs.shape[1]))
        return tokens, log_probs.gather(1, tokens[:, None])[:, 0]

    def distribution(self, logits: Tensor, suppressed: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """(log-probabilities sampled from, kept set or None), each (A, V)."""
        of = partial(log_distribution, logits, temperature=self.sampling.temperature, suppressed=suppressed)
        log_probs = of()
        kept = kept_set(log_probs, self.sampling.top_k, self.sampling.top_p)
        return (log_probs if kept is None else of(kept=kept)), kept

    @cached_property
    def embedded_codes(self) -> Tensor:
        """(codes, H): computed once, where every drawn token would else go through the aligner."""
        codes: int = self.model.model.vqmodel.quantize.num_embeddings
        return network.embed_codes(self.model, torch.arange(codes, device=self.device))
