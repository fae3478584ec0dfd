"""What both phases of a sampler call share.

These are prefill, forward pass, distribution, and the choice of the next token.
"""

from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import Tensor
from transformers import JanusForConditionalGeneration

from thinkdraw.policies import speed
from thinkdraw.policies.janus import functions
from thinkdraw.policies.janus.text import JanusText
from thinkdraw.policies.sampling import memory, noise
from thinkdraw.policies.sampling.cache import KVCache
from thinkdraw.policies.sampling.decoder import Decoder
from thinkdraw.policies.sampling.distribution import log_distribution, top_k_top_p_mask
from thinkdraw.policies.sampling.partial import pad_rows
from thinkdraw.types import Sampling

Ids = list[list[int]]


@dataclass
class DecodingSession:
    """Decoding with the weights as they are when the session is made.

    Make one for each sampler call.
    num_image_tokens: of a whole picture.
    cuda_graphs: let an NVIDIA GPU record and replay decode steps.
    """

    model: JanusForConditionalGeneration
    text: JanusText
    sampling: Sampling
    num_image_tokens: int
    device: torch.device
    cuda_graphs: bool = True

    def __post_init__(self) -> None:
        self.guided = self.sampling.guidance_scale != 1.0
        self.rows_per_rollout = 2 if self.guided else 1  # in the picture phase
        self.budget = 0 if self.sampling.thought == "off" else self.sampling.max_thought_tokens
        self.suppressed = self.text.suppressed.to(self.device)  # text ids that are never sampled
        self.decoder, self.heads = Decoder(self.model), functions.Heads.of(self.model).in_fp32()
        self.cache_dtype = self.decoder.operations.cache_dtype
        # The number of tokens that top-k and top-p leave differs from step to step, and a CUDA graph has fixed sizes.
        cuts = self.sampling.top_k is not None or self.sampling.top_p is not None
        self.steps = speed.decode_steps(self.device, self.cuda_graphs and not cuts)
        # Whether Python runs ahead of the device, and must wait for it wherever it reads a number.
        self.asynchronous = self.device.type != "cpu" or self.steps.records

    def capacity(self, contexts: Ids, thought_tokens: int) -> int:
        """Return the columns that each row of a cache needs."""
        return memory.columns_of(max(map(len, contexts), default=0), thought_tokens, self.num_image_tokens)

    def new_cache(self, rows: int, capacity: int) -> KVCache:
        """Make an empty cache.

        It may reuse the memory of the session's last one, which must not be used any more.
        """
        return self.decoder.new_cache(rows, capacity)

    def prefill(self, cache: KVCache, contexts: Ids) -> tuple[Tensor, Tensor]:
        """Read a context into each of the cache's first rows.

        Equal contexts, such as a group's prompt, are read once and copied. Returns their lengths (A,) and the
        hidden states (A, H) of their last tokens.
        """
        unique = list(dict.fromkeys(map(tuple, contexts)))
        row_of = {ids: i for i, ids in enumerate(unique)}
        ids, lengths = pad_rows([list(ids) for ids in unique], self.text.pad, self.device)
        positions = torch.arange(ids.shape[1], device=self.device).expand(ids.shape)
        hidden = self.forward(cache, self.model.get_input_embeddings()(ids), positions, ids.shape[1])
        last = hidden[torch.arange(len(ids), device=self.device), lengths - 1]
        rows = torch.tensor([row_of[tuple(ids)] for ids in contexts], device=self.device)
        if len(unique) < len(contexts):
            cache.copy(torch.arange(len(rows), device=self.device), rows, ids.shape[1])
        return lengths[rows], last[rows]

    def forward(self, cache: KVCache, embeddings: Tensor, positions: Tensor, columns: int) -> Tensor:
        """Compute hidden states (R, S, H) of new tokens of the cache's first R rows.

        positions: (R, S), all below `columns`.
        """
        cache.begin_pass(positions, columns)
        return self.decoder(embeddings, positions, cache)

    def choose(self, log_probs: Tensor, keys: Tensor | None) -> tuple[Tensor, Tensor]:
        """Choose a token for each of A rows; return tokens and log-probs, each (A,).

        keys: (2, A), of `noise.token_keys`. None = take the most likely token.
        """
        if keys is None:
            tokens = log_probs.argmax(-1)
        else:
            tokens = noise.gumbel_max(log_probs, noise.neg_gumbel(keys, log_probs.shape[1]))
        return tokens, log_probs.gather(1, tokens[:, None])[:, 0]

    def distribution(self, logits: Tensor, suppressed: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Return the log-probs sampled from, and the allowed tokens or None, each (A, V).

        suppressed: (V,) bool, True = never sampled.
        """
        log_probs_of = partial(log_distribution, logits, temperature=self.sampling.temperature, suppressed=suppressed)
        log_probs = log_probs_of()
        allowed = top_k_top_p_mask(log_probs, self.sampling.top_k, self.sampling.top_p)
        return (
            log_probs if allowed is None else log_probs_of(allowed=allowed)
        ), allowed  # renormalised over the allowed tokens

    @cached_property
    def embedded_codes(self) -> Tensor:
        """(codes, H) input embeddings of all image tokens.

        They are computed once, so that the aligner does not run at every decode step.
        """
        codes: int = self.model.model.vqmodel.quantize.num_embeddings
        return functions.embed_codes(self.model, torch.arange(codes, device=self.device))

    def close(self) -> None:
        """End sampling: the last cache is not used any more, and may be freed."""
        self.decoder.operations.close()
