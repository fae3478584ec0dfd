"""Sampling, and the pieces of it that any model family can use.

These are noise that follows from seeds, and one function for distributions.
"""

from thinkdraw.policies.sampling.distribution import allowed_mask, entropy_of, guide, log_distribution, top_k_top_p_mask
from thinkdraw.policies.sampling.noise import (
    derive_seeds,
    exponential,
    gumbel_max,
    neg_gumbel,
    segment_streams,
    token_keys,
)
from thinkdraw.policies.sampling.partial import pad_rows

__all__ = [
    "allowed_mask", "derive_seeds", "entropy_of", "exponential", "guide", "gumbel_max", "log_distribution",
    "neg_gumbel", "pad_rows", "segment_streams", "token_keys", "top_k_top_p_mask",
]  # fmt: skip
