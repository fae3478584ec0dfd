"""From logits to the distribution that a token is sampled from.

Sampler and trainer both call `log_distribution`. This is what makes their log-probs equal.
"""

import torch
from torch import Tensor

from thinkdraw.types import AllowedTokens

# Log-probs are clamped here for entropies. A token this unlikely adds nothing in fp32, and below −87 exp gives denormal
# numbers, which are slow on CPUs.
MIN_LOG_PROB = -80.0


def guide(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    """Apply classifier-free guidance u + s(c − u), in float32.

    It applies to logits, or to inputs of a linear head.
    """
    base = unconditional.float()
    return base + scale * (conditional.float() - base)


def log_distribution(
    logits: Tensor,
    *,
    temperature: float,
    unconditional: Tensor | None = None,
    guidance_scale: float = 1.0,
    suppressed: Tensor | None = None,
    allowed: Tensor | None = None,
) -> Tensor:
    """Compute log-probabilities (K, V) float32 of the distribution sampled from.

    They are −inf where a token cannot be sampled.
    logits: (K, V).
    unconditional: (K, V) for guidance u + s(c − u), or None.
    suppressed: (V,) bool, True = never sampled.
    allowed: (K, V) bool, True = left by top-k and top-p, or None.
    """
    logits = logits.float() if unconditional is None else guide(logits, unconditional, guidance_scale)
    if suppressed is not None:
        logits = logits.masked_fill(suppressed, float("-inf"))
    if temperature != 1.0:
        logits = logits / temperature
    if allowed is not None:
        logits = logits.masked_fill(~allowed, float("-inf"))
    return logits.log_softmax(dim=-1)


def top_k_top_p_mask(log_probs: Tensor, top_k: int | None, top_p: float | None) -> Tensor | None:
    """Mark the tokens (K, V) bool that top-k and top-p leave; None = all.

    These are the k most likely tokens and, among them, the fewest that hold p of the probability. Order and ties
    are as in transformers' warpers: top-k first, then top-p on the rest; at least one token stays.
    """
    num_allowed = min(top_k or log_probs.shape[-1], log_probs.shape[-1])
    mass = 1.0 if top_p is None else top_p
    if num_allowed == log_probs.shape[-1] and mass == 1:
        return None
    values, indices = log_probs.topk(num_allowed, dim=-1)
    stays = torch.isfinite(values)
    if mass < 1:
        probs = values.softmax(dim=-1)
        stays &= probs.cumsum(dim=-1) - probs < mass
    return torch.zeros_like(log_probs, dtype=torch.bool).scatter_(-1, indices, stays)


def allowed_mask(allowed: AllowedTokens, position: tuple[Tensor, Tensor], vocabulary: int) -> Tensor:
    """Mark the allowed tokens (K, V) bool of K tokens; all True where nothing was cut.

    position: rows and columns (K,) of the tokens on the token axis.
    vocabulary: V.
    """
    flat = allowed.counts.flatten().long()
    index = position[0] * allowed.counts.shape[1] + position[1]
    counts, ends = flat[index], flat.cumsum(0)[index]
    mask = (counts == 0)[:, None].repeat(1, vocabulary)
    row = torch.arange(len(index), device=flat.device).repeat_interleave(counts)
    offset = torch.arange(len(row), device=flat.device) - (counts.cumsum(0) - counts)[row]
    mask[row, allowed.indices[(ends - counts)[row] + offset].long()] = True
    return mask


def entropy_of(log_probs: Tensor) -> Tensor:
    """Compute the entropy (K,) in nats of log-probabilities (K, V), with gradient.

    Entries of −inf add nothing.
    """
    bounded = log_probs.clamp(min=MIN_LOG_PROB)
    return -(bounded.exp() * bounded).sum(dim=-1)
