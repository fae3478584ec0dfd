"""The sixteen silhouettes of the lab world, their sizes and textures, as masks."""

from functools import cache
from typing import Literal, get_args

import numpy as np

CELL = 16
"""Side in pixels of the square cell that one object occupies."""

Size = Literal["small", "large"]
Texture = Literal["solid", "striped", "dotted"]
SIZES: tuple[str, ...] = get_args(Size)
TEXTURES: tuple[str, ...] = get_args(Texture)
RADIUS = {"small": 5.5, "large": 8.0}

SHAPES: tuple[str, ...] = (
    "circle",
    "square",
    "triangle",
    "diamond",
    "cross",
    "star",
    "heart",
    "ring",
    "moon",
    "arrow",
    "house",
    "tree",
    "fish",
    "cup",
    "frame",
    "hourglass",
)
PLURALS = {shape: shape + "s" for shape in SHAPES} | {
    "cross": "crosses",
    "fish": "fish",
    "hourglass": "hourglasses",
}


def _inside(shape: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Tell which points (x, y) in [-1, 1]² are inside the shape; y points down."""
    r = np.hypot(x, y)
    ax, ay = np.abs(x), np.abs(y)
    match shape:
        case "circle":
            return r <= 0.97
        case "square":
            return np.maximum(ax, ay) <= 1.0
        case "triangle":
            return (y <= 0.9) & (ax <= (y + 1.0) * 0.5)
        case "diamond":
            return ax + ay <= 1.0
        case "cross":
            return np.minimum(ax, ay) <= 0.3
        case "star":
            angle = np.arctan2(x, -y)
            wedge = np.abs((angle * 5 / (2 * np.pi)) % 1 - 0.5) * 2  # 1 at a tip, 0 in a notch
            return r <= 0.36 + 0.66 * wedge**1.5
        case "heart":
            lobes = np.hypot(ax - 0.48, y + 0.42) <= 0.52
            return lobes | ((y > -0.42) & (ax + 0.95 * (y + 0.25) <= 1.08))
        case "ring":
            return (r <= 1.0) & (r >= 0.52)
        case "moon":
            return (r <= 1.0) & (np.hypot(x - 0.5, y + 0.15) >= 0.74)
        case "arrow":
            shaft = (x <= 0.1) & (ay <= 0.27)
            head = (x > 0.0) & (ay <= (1.0 - x) * 0.98)
            return shaft | head
        case "house":
            roof = (y <= -0.05) & (ax <= (y + 1.0) * 1.08)
            return roof | ((y > -0.05) & (ax <= 0.66) & ~((ax < 0.22) & (y > 0.42)))
        case "tree":
            crown = (y <= 0.5) & (ax <= (((y + 1.0) * 0.72) % 0.56) + 0.28)
            return crown | ((y > 0.5) & (ax <= 0.2))
        case "fish":
            body = (((x + 0.22) / 0.78) ** 2 + (y / 0.58) ** 2) <= 1
            tail = (x >= 0.35) & (ay <= (x - 0.3) * 1.25)
            return body | tail
        case "cup":
            bowl = (np.abs(x + 0.25) <= 0.6 - 0.22 * y) & (ay <= 0.85)
            handle = np.hypot((x - 0.3) / 0.7, (y + 0.05) / 0.62)
            return bowl | ((x > 0.3) & (handle <= 1.0) & (handle >= 0.55))
        case "frame":
            edge = np.maximum(ax, ay)
            return (edge <= 1.0) & (edge >= 0.5)
        case "hourglass":
            return (ax <= 0.12 + 0.85 * ay) & (ay <= 0.97)
    raise ValueError(f"shape={shape!r}: the lab knows {', '.join(SHAPES)}.")


@cache
def silhouette(shape: str, size: str) -> np.ndarray:
    """Return (CELL, CELL) bool, True on the object's pixels; read-only."""
    centres = (np.arange(CELL) - (CELL - 1) / 2) / RADIUS[size]
    x, y = np.meshgrid(centres, centres)
    mask = _inside(shape, x, y) & (np.maximum(np.abs(x), np.abs(y)) <= 1.0)
    mask.flags.writeable = False
    return mask


@cache
def ink(texture: str) -> np.ndarray:
    """Return (CELL, CELL) bool, True where dark ink replaces the object's colour.

    The array is read-only.
    """
    y, x = np.mgrid[:CELL, :CELL]
    mask = {
        "solid": np.zeros((CELL, CELL), dtype=bool),
        "striped": y % 4 >= 2,
        "dotted": (y % 4 >= 2) & (x % 4 >= 2),
    }[texture]
    mask.flags.writeable = False
    return mask
