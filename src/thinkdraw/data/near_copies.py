"""Finds long texts that share most of their word triples.

MinHash (Broder 1997) with banding proposes pairs instead of comparing all. The exact Jaccard similarity decides, so every reported
pair is right. With 32 bands of 5 hashes a pair at Jaccard 0.8 is missed with probability (1 − 0.8^5)^32 ≈ 3e-6.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

NUM_BANDS, BAND_SIZE = 32, 5
SCREEN_MARGIN = 0.15
"""How far below the limit an estimate of 160 hashes may lie: 4.7 standard deviations at 0.8."""

CHUNK = 4096

_MIXERS = np.random.default_rng(0).integers(1, 1 << 62, size=(4, NUM_BANDS * BAND_SIZE), dtype=np.uint64) | np.uint64(1)


@dataclass(frozen=True)
class NearCopy:
    """Text `left` of the first list and text `right` of the second share many triples.

    jaccard: the fraction of word triples that they share.
    """

    left: int
    right: int
    jaccard: float


def find_near_copies(left: Sequence[str], right: Sequence[str], min_jaccard: float) -> list[NearCopy]:
    """Return, for each text of `left` that has one, its first copy in `right`.

    Texts of fewer than three words have no triple.
    """
    if not left or not right:
        return []
    known = signatures_of(right)
    out: dict[int, NearCopy] = {}
    for at in range(0, len(left), CHUNK):  # in chunks, so that memory does not grow with the number of pairs
        for i, j in candidates(signatures_of(left[at : at + CHUNK], at), known, min_jaccard - SCREEN_MARGIN):
            if at + i not in out and (share := jaccard(left[at + i], right[j])) >= min_jaccard:
                out[at + i] = NearCopy(at + i, j, share)
    return list(out.values())


def jaccard(a: str, b: str) -> float:
    """Compute the fraction of word triples that two texts share, 0..1."""
    triples_a, triples_b = triples(a), triples(b)
    return len(triples_a & triples_b) / max(1, len(triples_a | triples_b))


@cache
def _word_hash(word: str) -> int:
    return zlib.crc32(word.encode())


def triples(text: str) -> set[tuple[str, ...]]:
    words = text.split()
    return set(zip(words, words[1:], words[2:]))


def signatures_of(texts: Sequence[str], first: int = 0) -> np.ndarray:
    """Return (texts, 160) uint32 MinHash signatures.

    The fraction of equal entries of two rows estimates their Jaccard similarity. A text without triples is hashed by its index, counted
    from `first`, so that it matches no other text.
    """
    # In chunks whose hashes fit the processor's cache.
    return np.concatenate([_signatures(texts[at : at + 256], first + at) for at in range(0, len(texts), 256)])


def _signatures(texts: Sequence[str], first: int) -> np.ndarray:
    hashes, starts = [], [0]
    for number, text in enumerate(texts, start=first):
        words = np.array([_word_hash(word) for word in text.split()], dtype=np.uint64)
        if len(words) < 3:
            hashes.append(np.array([number], dtype=np.uint64) << np.uint64(32))
        else:
            hashes.append(words[:-2] * _MIXERS[0, 0] + words[1:-1] * _MIXERS[0, 1] + words[2:] * _MIXERS[0, 2])
        starts.append(starts[-1] + len(hashes[-1]))
    flat = np.concatenate(hashes)
    flat ^= flat >> np.uint64(29)
    rows = np.empty((len(texts), NUM_BANDS * BAND_SIZE), dtype=np.uint32)
    for column, (a, b) in enumerate(_MIXERS[1:3].T):
        mixed = flat * a + b
        mixed ^= mixed >> np.uint64(32)
        mixed *= _MIXERS[0, 3]
        rows[:, column] = np.minimum.reduceat(mixed, starts[:-1]) >> np.uint64(32)
    return rows


def candidates(left: np.ndarray, right: np.ndarray, min_estimate: float) -> list[tuple[int, int]]:
    """Return pairs (left row, right row), sorted, that may be near copies.

    They agree in a whole band and in `min_estimate` of all hashes.
    """
    pairs = []
    for band in range(NUM_BANDS):
        part = slice(band * BAND_SIZE, (band + 1) * BAND_SIZE)
        keys = [(rows[:, part].astype(np.uint64) * _MIXERS[3, part]).sum(1, dtype=np.uint64) for rows in (left, right)]
        order = np.argsort(keys[1], kind="stable")
        ranked = keys[1][order]
        begin, end = np.searchsorted(ranked, keys[0], "left"), np.searchsorted(ranked, keys[0], "right")
        i = np.repeat(np.arange(len(left)), end - begin)
        within = np.arange(len(i)) - np.repeat(np.cumsum(end - begin) - (end - begin), end - begin)
        pairs.append(_screen(left, right, i, order[np.repeat(begin, end - begin) + within], min_estimate))
    codes = np.unique(np.concatenate(pairs))
    return [(int(code) // len(right), int(code) % len(right)) for code in codes]


def _screen(left: np.ndarray, right: np.ndarray, i: np.ndarray, j: np.ndarray, min_estimate: float) -> np.ndarray:
    """Return codes i · len(right) + j of the pairs whose signatures agree enough.

    Works in chunks, so that memory stays small.
    """
    kept = []
    for at in range(0, len(i), 20_000):
        a, b = i[at : at + 20_000], j[at : at + 20_000]
        alike = (left[a] == right[b]).mean(1) >= min_estimate
        kept.append(a[alike].astype(np.int64) * len(right) + b[alike])
    return np.concatenate(kept) if kept else np.zeros(0, dtype=np.int64)
