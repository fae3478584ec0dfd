"""Sampling, and the parts of it that any family can use: noise that follows from seeds, and one function for distributions."""

from thinkdraw.policies.sampling.distribution import allowed_mask, entropy_of, guide, log_distribution, top_k_top_p_mask
from thinkdraw.policies.sampling.noise import derive_seeds, draw, exponential, keys, race, streams
from thinkdraw.policies.sampling.partial import pad_rows

__all__ = [
    "derive_seeds", "draw", "entropy_of", "exponential", "guide", "allowed_mask", "top_k_top_p_mask", "keys", "log_distribution",
    "pad_rows", "race", "streams",
]  # fmt: skip
