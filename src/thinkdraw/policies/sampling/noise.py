"""Stateless noise: each value follows from the rollout's seed, the token's place and the vocabulary entry alone.

So a rollout does not depend on which rows share its batch, on chunking, or on where a continuation started.
"""

from collections.abc import Iterable

import torch
from torch import Tensor


def _int32(constant: int) -> int:
    """The signed int32 with the bits of an unsigned constant; torch's int32 arithmetic wraps."""
    return constant - (1 << 32) if constant >= 1 << 31 else constant


_MULTIPLIERS = _int32(0x7FEB352D), _int32(0x846CA68B)
_STARTS = _int32(0x9E3779B9), _int32(0x85EBCA6B)


def _mix_(bits: Tensor) -> Tensor:
    """lowbias32 in place, a bijection of 32-bit words (Wellons 2018, https://nullprogram.com/blog/2018/07/31/)."""
    for shift, multiplier in zip((16, 15, 16), (*_MULTIPLIERS, None)):
        # torch shifts signed integers arithmetically; the mask makes the shift logical.
        bits.bitwise_xor_(bits.bitwise_right_shift(shift).bitwise_and_((1 << (32 - shift)) - 1))
        if multiplier is not None:
            bits.mul_(multiplier)
    return bits


def _hashed(words: Iterable[Tensor]) -> Tensor:
    """(2, B) int32: two independent hashes of B rows. words: (B,) each, of which the low 32 bits count."""
    first, *others = words
    starts = torch.tensor(_STARTS, dtype=torch.int32, device=first.device)
    key = _mix_(starts[:, None] ^ first.to(torch.int32))
    for word in others:
        key = _mix_(key.bitwise_xor_(word.to(torch.int32)))
    return key


def streams(seeds: Tensor, segment: int) -> Tensor:
    """(2, B) int32: the hash that all tokens of a segment start from. seeds: (B,) int64. segment: its number in the rollout."""
    low, high = seeds.bitwise_and(0xFFFFFFFF), seeds.bitwise_right_shift(32)
    return _hashed([low, high, torch.full_like(seeds, segment + 1)])


def keys(streams: Tensor, index: Tensor) -> Tensor:
    """(2, B) int32: the hash of one token of each stream. index: (B,) int64, the token's index within its segment."""
    return _mix_(streams ^ index.to(torch.int32))


def exponential(keys: Tensor, vocabulary: int) -> Tensor:
    """Unit-rate exponential noise (B, V) float32, in 2e-10 .. 17, of `keys` (2, B): a hash for each vocabulary entry."""
    entries = torch.arange(vocabulary, dtype=torch.int32, device=keys.device)
    bits = _mix_(entries ^ keys[0, :, None])
    bits = _mix_(bits.bitwise_xor_(keys[1, :, None]))
    # 31 bits near 0 resolve the small values, which win races; below 1, or the logarithm would be infinite.
    uniform = bits.bitwise_and_(0x7FFFFFFF).float().add_(0.5).mul_(2.0**-31).clamp_(max=1 - 2.0**-24)
    return uniform.neg_().log1p_().neg_()


def race(keys: Tensor, vocabulary: int) -> Tensor:
    """(B, V) float32, the logarithm of `exponential` noise: negative Gumbel noise, for `draw`. keys: (2, B)."""
    return exponential(keys, vocabulary).log_()


def draw(log_probs: Tensor, race: Tensor) -> Tensor:
    """Sample a token (B,) int64 per row of log_probs (B, V) by the Gumbel-max trick. race: (B, V), of `race`."""
    return (log_probs - race).argmax(dim=-1)


def derive_seeds(seed: int, num_prompts: int, group_size: int) -> Tensor:
    """(P·G,) int64 seeds ≥ 0, one per rollout, from one base seed, the prompt's index and the index in its group."""
    place = torch.arange(num_prompts).repeat_interleave(group_size)
    member = torch.arange(group_size).repeat(num_prompts)
    base = torch.full_like(place, seed)
    low, high = keys(streams(base + (place << 32), 0), member).long() & 0xFFFFFFFF
    return ((high << 32) | low) & 0x7FFFFFFFFFFFFFFF
