"""Lines over time, and areas on top of each other.

They come with `Plot.hover`, the numbers behind them, which the page's script reads out under the pointer.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
from markupsafe import Markup

from thinkdraw.charts.axes import Place, axis, log_axis, scale, short
from thinkdraw.charts.frame import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, grid, path, svg, x_axis

MAX_POINTS = 400
_LOG_FLOOR = 1e-9  # where an exact zero is drawn on a logarithmic axis


@dataclass(frozen=True)
class Series:
    """values: one per x, NaN where there is none. color: 1..6, of the style sheet."""

    label: str
    values: np.ndarray
    color: int


class Hover(TypedDict):
    """x: labels. at: their places in the view box. values: labels per series."""

    at: list[float]
    x: list[str]
    values: list[list[str]]


@dataclass(frozen=True)
class Plot:
    """A drawn chart. legend: (label, color, last value)."""

    svg: Markup
    legend: Sequence[tuple[str, int, str]]
    hover: Hover


def line_plot(name: str, title: str, x: np.ndarray, series: Sequence[Series], *, log: bool = False) -> Plot:
    """A smoothed line over faint raw values per series. x: (n,), increasing. name: unique on the page."""
    drawn = [(s, *_thin(x, s.values, np.nanmax if log else np.nanmean)) for s in series]
    raw = np.concatenate([values for _, _, values in drawn])
    if log:
        raw = np.log10(np.maximum(raw, _LOG_FLOOR))
    low, high, ticks = log_axis(raw) if log else axis(raw)
    place_x, place_y = scale(x.min(), x.max(), LEFT, WIDTH - RIGHT), scale(low, high, HEIGHT - BOTTOM, TOP)
    parts = [grid(ticks, place_y), x_axis(x, place_x)]
    for s, at, values in drawn:
        values = np.log10(np.maximum(values, _LOG_FLOOR)) if log else values
        known = np.isfinite(values)
        if known.sum() <= MAX_POINTS // 8:  # few values: every one is shown
            at, values = at[known], values[known]
            parts.append(path(place_x(at), place_y(values), f"line c{s.color}"))
            dots = (f'<circle cx="{a:.1f}" cy="{b:.1f}" r="2.6"/>' for a, b in zip(place_x(at), place_y(values)))
            parts.append(f'<g class="dots c{s.color}">{"".join(dots)}</g>')
        else:
            parts.append(path(place_x(at), place_y(values), f"raw c{s.color}"))
            parts.append(path(place_x(at), place_y(smooth(values)), f"line c{s.color}"))
    return _plot(name, title, parts, x, place_x, series)


def stacked_plot(name: str, title: str, x: np.ndarray, series: Sequence[Series]) -> Plot:
    """Areas on top of each other; a missing value counts as nothing."""
    thinned = [_thin(x, np.nan_to_num(s.values), np.nanmean) for s in series]
    at = thinned[0][0]
    tops = np.cumsum([smooth(values) for _, values in thinned], axis=0)
    low, high, ticks = axis(np.append(tops[-1], 0.0))
    place_x, place_y = scale(x.min(), x.max(), LEFT, WIDTH - RIGHT), scale(low, high, HEIGHT - BOTTOM, TOP)
    parts = [grid(ticks, place_y), x_axis(x, place_x)]
    floor = np.zeros_like(at)
    for s, top in zip(series, tops):
        xs, ys = np.concatenate([at, at[::-1]]), np.concatenate([top, floor[::-1]])
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(place_x(xs), place_y(ys)))
        parts.append(f'<polygon class="area c{s.color}" points="{points}"/>')
        floor = top
    return _plot(name, title, parts, x, place_x, series)


def smooth(values: np.ndarray) -> np.ndarray:
    """Centred triangular moving average over about a tenth of the curve; NaN stays NaN and is not averaged."""
    half = len(values) // 20
    if half == 0:
        return values
    window = np.concatenate([np.arange(1, half + 2), np.arange(half, 0, -1)]).astype(np.float64)
    known = np.isfinite(values)
    total = np.convolve(np.where(known, values, 0.0), window, mode="full")[half:-half]
    weight = np.convolve(known.astype(np.float64), window, mode="full")[half:-half]
    return np.where(known, total / np.maximum(weight, 1e-12), np.nan)


def _thin(x: np.ndarray, values: np.ndarray, reduce: Callable[[np.ndarray], float]) -> tuple[np.ndarray, np.ndarray]:
    """At most MAX_POINTS points, each the mean (or largest) of its neighbours."""
    if len(x) <= MAX_POINTS:
        return x, values
    chunks = np.array_split(np.arange(len(x)), MAX_POINTS)
    kept = [chunk[np.isfinite(values[chunk])] for chunk in chunks]
    thinned = np.array([reduce(values[chunk]) if len(chunk) else math.nan for chunk in kept])
    return np.array([x[chunk].mean() for chunk in chunks]), thinned


def _plot(name: str, title: str, parts: list[str], x: np.ndarray, place_x: Place, series: Sequence[Series]) -> Plot:
    at, _ = _thin(x, x, np.nanmean)
    values = [[short(float(v)) for v in _thin(x, s.values, np.nanmean)[1]] for s in series]
    known = [s.values[np.isfinite(s.values)] for s in series]
    legend = [(s.label, s.color, short(float(k[-1])) if len(k) else "–") for s, k in zip(series, known)]
    ends = "; ".join(
        f"{s.label} from {short(float(k[0]))} to {short(float(k[-1]))}" for s, k in zip(series, known) if len(k)
    )
    cursor = f'<line class="cursor" x1="0" x2="0" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
    drawn = svg(name, title, "".join([*parts, cursor]), HEIGHT, f"{ends}.")
    hover: Hover = {"at": [round(float(place_x(v)), 1) for v in at], "x": [f"{v:,.0f}" for v in at], "values": values}
    return Plot(drawn, legend, hover)
