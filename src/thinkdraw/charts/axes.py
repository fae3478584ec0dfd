"""Axes: round ticks, scales from values to the view box, and short numbers."""

import math
from typing import Protocol, TypeAlias, TypeVar

import numpy as np

Values = TypeVar("Values", float, np.ndarray)
Ticks: TypeAlias = list[tuple[float, str]]


class AxisScale(Protocol):
    """Maps a value, or many, to a position in the view box."""

    def __call__(self, value: Values, /) -> Values: ...


_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def scale(low: float, high: float, start: float, end: float) -> AxisScale:
    """Return the scale from low..high to start..end of the view box."""
    span = high - low or 1.0

    def position(value: Values, /) -> Values:
        return start + (value - low) / span * (end - start)

    return position


def axis(values: np.ndarray) -> tuple[float, float, Ticks]:
    """Choose the range of an axis, from 0 where that costs little, and round ticks."""
    known = values[np.isfinite(values)]
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
    if 0 < low < high * 0.6:
        low = 0.0
    if high - low < 1e-12 * max(1.0, abs(high)):
        low, high = low - (abs(low) * 0.1 or 0.5), high + (abs(high) * 0.1 or 0.5)
    step = _round_step((high - low) / 4)
    low, high = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
    ticks = [low + i * step for i in range(round((high - low) / step) + 1)]
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    labels = [f"{0.0 if abs(t) < step / 1e6 else t:,.{digits}f}" if step >= 1e-4 else short(t) for t in ticks]
    return low, high, [(t, label.replace("-", "−")) for t, label in zip(ticks, labels)]


def log_axis(exponents: np.ndarray) -> tuple[float, float, Ticks]:
    """Choose the range of a log axis, and ticks at whole powers of ten, at most five."""
    known = exponents[np.isfinite(exponents)]
    low, high = math.floor(known.min()), math.ceil(known.max())
    high = max(high, low + 1)
    every = math.ceil((high - low) / 4)
    ticks = [(float(e), f"10{str(e).translate(_SUPERSCRIPTS)}") for e in range(low, high + 1, every)]
    return float(low), float(high), ticks


def short(value: float) -> str:
    """Write a number for a label, with about three digits."""
    if not math.isfinite(value):
        return "–"
    size = abs(value)
    if size == 0:
        return "0"
    if size < 1e-3 or size >= 1e6:
        digits, _, exponent = f"{value:.1e}".partition("e")
        return f"{float(digits):g}·10{str(int(exponent)).translate(_SUPERSCRIPTS)}".replace("-", "−")
    digits = f"{value:,.0f}" if size >= 100 else f"{value:.3g}"
    return digits.replace("-", "−")


def _round_step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.75)
