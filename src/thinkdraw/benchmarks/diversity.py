"""How different the pictures of one prompt are.

A policy may earn its reward by drawing the same picture every time, which no other score shows.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

PATCH = 8
KERNEL_SCALE = 0.05
"""Mean absolute difference of patch colours at which the similarity of two pictures falls to 1/e."""


@dataclass(frozen=True)
class Diversity:
    """Diversity of one prompt's K pictures; NaN with fewer than two.

    pixels: mean absolute difference over pairs, 0..1. tokens: mean share of image tokens that differ, 0..1.
    vendi: the effective number of different pictures, 1..K.
    """

    pixels: float
    tokens: float
    vendi: float


def diversity(pictures: Sequence[np.ndarray], image_tokens: Sequence[np.ndarray]) -> Diversity:
    """Measure how different one prompt's pictures are.

    pictures: K × (H, W, 3) uint8. image_tokens: K × (N,).
    """
    if len(pictures) < 2:
        return Diversity(math.nan, math.nan, math.nan)
    flat = np.stack([np.asarray(p, dtype=np.float32).reshape(-1) / 255 for p in pictures])
    codes = np.stack([np.asarray(t) for t in image_tokens])
    a, b = np.triu_indices(len(flat), k=1)
    return Diversity(
        pixels=float(np.abs(flat[a] - flat[b]).mean()),
        tokens=float((codes[a] != codes[b]).mean()),
        vendi=vendi_score(similarity(patch_colors(pictures))),
    )


def patch_colors(pictures: Sequence[np.ndarray], patch: int = PATCH) -> np.ndarray:
    """Compute the mean colour of each patch, (K, F) float64 in 0..1.

    A border that no whole patch covers is left out.
    """
    array = np.stack([np.asarray(p, dtype=np.float64) for p in pictures]) / 255
    count, height, width, channels = array.shape
    patch = min(patch, height, width)
    rows, columns = height // patch, width // patch
    array = array[:, : rows * patch, : columns * patch].reshape(count, rows, patch, columns, patch, channels)
    return array.mean(axis=(2, 4)).reshape(count, -1)


def similarity(features: np.ndarray, scale: float = KERNEL_SCALE) -> np.ndarray:
    """Compute the (K, K) Laplace kernel exp(−mean |x − y| / scale).

    It is positive semi-definite, with ones on its diagonal.
    """
    distance = np.abs(features[:, None] - features[None]).mean(-1)
    return np.exp(-distance / scale)


def vendi_score(kernel: np.ndarray) -> float:
    """Compute the Vendi score: exp of the entropy of the eigenvalues of kernel / K.

    It lies in 1..K (Friedman & Dieng 2022, arXiv 2210.02410).
    kernel: (K, K) positive semi-definite with ones on its diagonal.
    """
    values = np.linalg.eigvalsh(kernel / len(kernel))
    values = values[values > 1e-12]
    return float(np.exp(-(values * np.log(values)).sum()))
