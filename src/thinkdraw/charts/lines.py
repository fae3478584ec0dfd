"""Lines over time, and stacked areas.

`Plot.hover` holds the numbers behind them, which the page's script shows under the pointer.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
from markupsafe import Markup

from thinkdraw.charts.axes import AxisScale, axis, log_axis, scale, short
from thinkdraw.charts.frame import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, grid, path, svg, x_axis

MAX_POINTS = 400
_LOG_FLOOR = 1e-9  # an exact zero is drawn here on a logarithmic axis


@dataclass(frozen=True)
class Series:
    """The values of one line: one per x, NaN where there is none.

    color: 1..6, of the style sheet.
    """

    label: str
    values: np.ndarray
    color: int


class Hover(TypedDict):
    """What the script shows under the pointer.

    at: positions in the view box. x: their labels. values: labels per series.
    """

    at: list[float]
    x: list[str]
    values: list[list[str]]


@dataclass(frozen=True)
class Plot:
    """A drawn chart. legend: (label, colour, last value)."""

    svg: Markup
    legend: Sequence[tuple[str, int, str]]
    hover: Hover


def line_plot(name: str, title: str, x: np.ndarray, series: Sequence[Series], *, log: bool = False) -> Plot:
    """Draw a smoothed line over faint raw values for each series.

    x: (n,), increasing. name: unique on the page.
    """
    curves = [(s, *_thin(x, s.values, np.nanmax if log else np.nanmean)) for s in series]
    raw = np.concatenate([values for _, _, values in curves])
    if log:
        raw = np.log10(np.maximum(raw, _LOG_FLOOR))
    low, high, ticks = log_axis(raw) if log else axis(raw)
    scale_x, scale_y = scale(x.min(), x.max(), LEFT, WIDTH - RIGHT), scale(low, high, HEIGHT - BOTTOM, TOP)
    elements = [grid(ticks, scale_y), x_axis(x, scale_x)]
    for s, at, values in curves:
        values = np.log10(np.maximum(values, _LOG_FLOOR)) if log else values
        known = np.isfinite(values)
        if known.sum() <= MAX_POINTS // 8:  # few values: show each as a dot, without smoothing
            at, values = at[known], values[known]
            elements.append(path(scale_x(at), scale_y(values), f"line c{s.color}"))
            dots = (f'<circle cx="{a:.1f}" cy="{b:.1f}" r="2.6"/>' for a, b in zip(scale_x(at), scale_y(values)))
            elements.append(f'<g class="dots c{s.color}">{"".join(dots)}</g>')
        else:
            elements.append(path(scale_x(at), scale_y(values), f"raw c{s.color}"))
            elements.append(path(scale_x(at), scale_y(smooth(values)), f"line c{s.color}"))
    return _plot(name, title, elements, x, scale_x, series)


def stacked_plot(name: str, title: str, x: np.ndarray, series: Sequence[Series]) -> Plot:
    """Draw stacked areas; a missing value counts as 0."""
    thinned = [_thin(x, np.nan_to_num(s.values), np.nanmean) for s in series]
    at = thinned[0][0]
    tops = np.cumsum([smooth(values) for _, values in thinned], axis=0)
    low, high, ticks = axis(np.append(tops[-1], 0.0))
    scale_x, scale_y = scale(x.min(), x.max(), LEFT, WIDTH - RIGHT), scale(low, high, HEIGHT - BOTTOM, TOP)
    elements = [grid(ticks, scale_y), x_axis(x, scale_x)]
    floor = np.zeros_like(at)
    for s, top in zip(series, tops):
        xs, ys = np.concatenate([at, at[::-1]]), np.concatenate([top, floor[::-1]])
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(scale_x(xs), scale_y(ys)))
        elements.append(f'<polygon class="area c{s.color}" points="{points}"/>')
        floor = top
    return _plot(name, title, elements, x, scale_x, series)


def smooth(values: np.ndarray) -> np.ndarray:
    """Average over a centred triangular window of about a tenth of the curve.

    NaN stays NaN and does not enter averages.
    """
    half = len(values) // 20
    if half == 0:
        return values
    window = np.concatenate([np.arange(1, half + 2), np.arange(half, 0, -1)]).astype(np.float64)
    known = np.isfinite(values)
    total = np.convolve(np.where(known, values, 0.0), window, mode="full")[half:-half]
    weight = np.convolve(known.astype(np.float64), window, mode="full")[half:-half]
    return np.where(known, total / np.maximum(weight, 1e-12), np.nan)


def _thin(x: np.ndarray, values: np.ndarray, reduce: Callable[[np.ndarray], float]) -> tuple[np.ndarray, np.ndarray]:
    """Reduce a curve to MAX_POINTS points, each the mean or maximum of its neighbours."""
    if len(x) <= MAX_POINTS:
        return x, values
    chunks = np.array_split(np.arange(len(x)), MAX_POINTS)
    known = [chunk[np.isfinite(values[chunk])] for chunk in chunks]
    thinned = np.array([reduce(values[chunk]) if len(chunk) else math.nan for chunk in known])
    return np.array([x[chunk].mean() for chunk in chunks]), thinned


def _plot(
    name: str, title: str, elements: list[str], x: np.ndarray, scale_x: AxisScale, series: Sequence[Series]
) -> Plot:
    at, _ = _thin(x, x, np.nanmean)
    values = [[short(float(v)) for v in _thin(x, s.values, np.nanmean)[1]] for s in series]
    known = [s.values[np.isfinite(s.values)] for s in series]
    legend = [(s.label, s.color, short(float(k[-1])) if len(k) else "–") for s, k in zip(series, known)]
    ends = "; ".join(
        f"{s.label} from {short(float(k[0]))} to {short(float(k[-1]))}" for s, k in zip(series, known) if len(k)
    )
    cursor = f'<line class="cursor" x1="0" x2="0" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
    chart = svg(name, title, "".join([*elements, cursor]), HEIGHT, f"{ends}.")
    hover: Hover = {"at": [round(float(scale_x(v)), 1) for v in at], "x": [f"{v:,.0f}" for v in at], "values": values}
    return Plot(chart, legend, hover)
