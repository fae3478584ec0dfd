"""Sampling, and the parts of it that any family can use: noise that follows from seeds, and one function for distributions."""

from thinkdraw.policies.sampling.distribution import entropy_of, guide, kept_mask, kept_set, log_distribution
from thinkdraw.policies.sampling.noise import derive_seeds, draw, exponential, keys, race, streams
from thinkdraw.policies.sampling.partial import pad_rows

__all__ = [
    "derive_seeds", "draw", "entropy_of", "exponential", "guide", "kept_mask", "kept_set", "keys", "log_distribution",
    "pad_rows", "race", "streams",
]  # fmt: skip
