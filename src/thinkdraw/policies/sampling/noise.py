"""Stateless noise, hashed from seed, token position and vocabulary entry.

So a rollout does not depend on the rows that share its batch, on chunking, or on where a continuation started.
"""

from collections.abc import Iterable

import torch
from torch import Tensor


def _int32(constant: int) -> int:
    """Return the signed int32 with the bits of an unsigned constant.

    torch's int32 arithmetic wraps around, as the hash needs.
    """
    return constant - (1 << 32) if constant >= 1 << 31 else constant


_MULTIPLIERS = _int32(0x7FEB352D), _int32(0x846CA68B)
_STARTS = _int32(0x9E3779B9), _int32(0x85EBCA6B)


def _mix_(bits: Tensor) -> Tensor:
    """Apply lowbias32 in place, a bijection of 32-bit words.

    Wellons 2018, https://nullprogram.com/blog/2018/07/31/.
    """
    for shift, multiplier in zip((16, 15, 16), (*_MULTIPLIERS, None)):
        # torch shifts signed integers arithmetically; the mask makes the shift logical.
        bits.bitwise_xor_(bits.bitwise_right_shift(shift).bitwise_and_((1 << (32 - shift)) - 1))
        if multiplier is not None:
            bits.mul_(multiplier)
    return bits


def _hash_words(words: Iterable[Tensor]) -> Tensor:
    """Hash B rows of words twice, independently: (2, B) int32.

    words: (B,) each, of which the low 32 bits count.
    """
    first, *rest = words
    starts = torch.tensor(_STARTS, dtype=torch.int32, device=first.device)
    key = _mix_(starts[:, None] ^ first.to(torch.int32))
    for word in rest:
        key = _mix_(key.bitwise_xor_(word.to(torch.int32)))
    return key


def segment_streams(seeds: Tensor, segment: int) -> Tensor:
    """Hash a segment of each rollout; all its tokens start from this: (2, B) int32.

    seeds: (B,) int64.
    segment: its number in the rollout.
    """
    low, high = seeds.bitwise_and(0xFFFFFFFF), seeds.bitwise_right_shift(32)
    return _hash_words([low, high, torch.full_like(seeds, segment + 1)])


def token_keys(streams: Tensor, index: Tensor) -> Tensor:
    """Hash one token of each stream: (2, B) int32.

    index: (B,) int64, the token's index within its segment.
    """
    return _mix_(streams ^ index.to(torch.int32))


def exponential(keys: Tensor, vocabulary: int) -> Tensor:
    """Make unit-rate exponential noise (B, V) float32, one value per vocabulary entry.

    Values lie in 2e-10 .. 17.
    keys: (2, B), of `token_keys`.
    """
    entries = torch.arange(vocabulary, dtype=torch.int32, device=keys.device)
    bits = _mix_(entries ^ keys[0, :, None])
    bits = _mix_(bits.bitwise_xor_(keys[1, :, None]))
    # The smallest exponential wins, so resolution counts near 0: 31 bits there. The clamp keeps uniform below 1, where
    # the logarithm would be infinite.
    uniform = bits.bitwise_and_(0x7FFFFFFF).float().add_(0.5).mul_(2.0**-31).clamp_(max=1 - 2.0**-24)
    return uniform.neg_().log1p_().neg_()


def neg_gumbel(keys: Tensor, vocabulary: int) -> Tensor:
    """Make negative Gumbel noise (B, V) float32, the logarithm of `exponential` noise.

    keys: (2, B), of `token_keys`.
    """
    return exponential(keys, vocabulary).log_()


def gumbel_max(log_probs: Tensor, neg_gumbel: Tensor) -> Tensor:
    """Sample a token (B,) int64 per row of log_probs (B, V) by the Gumbel-max trick.

    neg_gumbel: (B, V), of `neg_gumbel`.
    """
    return (log_probs - neg_gumbel).argmax(dim=-1)


def derive_seeds(seed: int, num_prompts: int, group_size: int) -> Tensor:
    """Derive (P·G,) int64 seeds ≥ 0, one per rollout.

    They follow from one base seed, the prompt's index, and the index within its group.
    """
    prompt = torch.arange(num_prompts).repeat_interleave(group_size)
    member = torch.arange(group_size).repeat(num_prompts)
    base = torch.full_like(prompt, seed)
    low, high = token_keys(segment_streams(base + (prompt << 32), 0), member).long() & 0xFFFFFFFF
    return ((high << 32) | low) & 0x7FFFFFFFFFFFFFFF
