"""Small SVG charts: lines, stacked areas, and dots with intervals. Colours are the style sheet's, for both themes.

Lines and areas come with `Plot.hover`, the numbers behind them, which the page's script reads out under the pointer.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup, escape

WIDTH, HEIGHT = 420, 210  # of the view box; the page scales it
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 10, 28
MAX_POINTS = 400
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_LOG_FLOOR = 1e-9  # where an exact zero is drawn on a logarithmic axis


@dataclass(frozen=True)
class Series:
    """values: one per x, NaN where there is none. color: 1..6, of the style sheet."""

    label: str
    values: np.ndarray
    color: int


@dataclass(frozen=True)
class Plot:
    """A drawn chart. legend: (label, color, last value). hover: x, their view-box places, and values per series."""

    svg: Markup
    legend: Sequence[tuple[str, int, str]]
    hover: dict[str, Any]


def line_plot(name: str, title: str, x: np.ndarray, series: Sequence[Series], *, log: bool = False) -> Plot:
    """A smoothed line over faint raw values per series. x: (n,), increasing. name: unique on the page."""
    drawn = [(s, *_thin(x, s.values, np.nanmax if log else np.nanmean)) for s in series]
    raw = np.concatenate([values for _, _, values in drawn])
    if log:
        raw = np.log10(np.maximum(raw, _LOG_FLOOR))
    low, high, ticks = _log_axis(raw) if log else _axis(raw)
    place_x, place_y = _scale(x.min(), x.max(), LEFT, WIDTH - RIGHT), _scale(low, high, HEIGHT - BOTTOM, TOP)
    parts = [_grid(ticks, place_y), _x_axis(x, place_x)]
    for s, at, values in drawn:
        values = np.log10(np.maximum(values, _LOG_FLOOR)) if log else values
        known = np.isfinite(values)
        if known.sum() <= MAX_POINTS // 8:  # few values: every one is shown
            at, values = at[known], values[known]
            parts.append(_path(place_x(at), place_y(values), f"line c{s.color}"))
            dots = (f'<circle cx="{a:.1f}" cy="{b:.1f}" r="2.6"/>' for a, b in zip(place_x(at), place_y(values)))
            parts.append(f'<g class="dots c{s.color}">{"".join(dots)}</g>')
        else:
            parts.append(_path(place_x(at), place_y(values), f"raw c{s.color}"))
            parts.append(_path(place_x(at), place_y(smooth(values)), f"line c{s.color}"))
    return _plot(name, title, parts, x, place_x, series)


def stacked_plot(name: str, title: str, x: np.ndarray, series: Sequence[Series]) -> Plot:
    """Areas on top of each other; a missing value counts as nothing."""
    thinned = [_thin(x, np.nan_to_num(s.values), np.nanmean) for s in series]
    at = thinned[0][0]
    tops = np.cumsum([smooth(values) for _, values in thinned], axis=0)
    low, high, ticks = _axis(np.append(tops[-1], 0.0))
    place_x, place_y = _scale(x.min(), x.max(), LEFT, WIDTH - RIGHT), _scale(low, high, HEIGHT - BOTTOM, TOP)
    parts = [_grid(ticks, place_y), _x_axis(x, place_x)]
    floor = np.zeros_like(at)
    for s, top in zip(series, tops):
        xs, ys = np.concatenate([at, at[::-1]]), np.concatenate([top, floor[::-1]])
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(place_x(xs), place_y(ys)))
        parts.append(f'<polygon class="area c{s.color}" points="{points}"/>')
        floor = top
    return _plot(name, title, parts, x, place_x, series)


def interval_plot(
    name: str, title: str, rows: Sequence[tuple[str, Sequence[tuple[str, float, float, float]]]]
) -> Markup:
    """One row of dots with 95 % intervals per task. rows: (task, [(class, value, low, high), …]), in 0..1."""
    left, step, top = 128, 34, 8
    height = top + step * len(rows) + 26
    highest = max((max(v for v in dot[1:] if v == v) for _, dots in rows for dot in dots), default=1.0)
    _, high, ticks = _axis(np.array([0.0, min(1.0, highest)]))
    place = _scale(0.0, high, left, WIDTH - RIGHT - 6)
    base = top + step * len(rows)
    parts = []
    for value, label in ticks:
        at = place(value)
        parts.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{top}" y2="{base}"/>')
        parts.append(f'<text class="tick" x="{at:.1f}" y="{base + 17}" text-anchor="middle">{label}</text>')
    for i, (task, dots) in enumerate(rows):
        middle = top + step * (i + 0.5)
        bold = " strong" if i == 0 else ""
        parts.append(
            f'<text class="task{bold}" x="{left - 12}" y="{middle + 4}" text-anchor="end">{escape(task[:18])}</text>'
        )
        if i == 1:
            parts.append(f'<line class="rule" x1="0" x2="{WIDTH}" y1="{top + step}" y2="{top + step}"/>')
        for k, (style, value, low, high_end) in enumerate(dots):
            y = middle + (k - (len(dots) - 1) / 2) * 8
            tip = f"{value:.3f}" + (f" [{low:.3f}, {high_end:.3f}]" if low == low and high_end == high_end else "")
            whisker = ""
            if low == low and high_end == high_end:
                whisker = f'<line x1="{place(low):.1f}" x2="{place(high_end):.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'
            dot = f'<circle cx="{place(value):.1f}" cy="{y:.1f}" r="3.6"/>'
            parts.append(f'<g class="dot {escape(style)}"><title>{escape(task)}: {tip}</title>{whisker}{dot}</g>')
    return _svg(name, title, "".join(parts), height)


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


def short(value: float) -> str:
    """A number for a label: about three digits."""
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


def _thin(x: np.ndarray, values: np.ndarray, reduce: Any) -> tuple[np.ndarray, np.ndarray]:
    """At most MAX_POINTS points, each the mean (or largest) of its neighbours."""
    if len(x) <= MAX_POINTS:
        return x, values
    chunks = np.array_split(np.arange(len(x)), MAX_POINTS)
    kept = [chunk[np.isfinite(values[chunk])] for chunk in chunks]
    thinned = np.array([reduce(values[chunk]) if len(chunk) else math.nan for chunk in kept])
    return np.array([x[chunk].mean() for chunk in chunks]), thinned


def _scale(low: float, high: float, start: float, end: float) -> Any:
    span = high - low or 1.0
    return lambda value: start + (value - low) / span * (end - start)


def _axis(values: np.ndarray) -> tuple[float, float, list[tuple[float, str]]]:
    """Range and round ticks; from zero where that costs little height."""
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


def _log_axis(exponents: np.ndarray) -> tuple[float, float, list[tuple[float, str]]]:
    known = exponents[np.isfinite(exponents)]
    low, high = math.floor(known.min()), math.ceil(known.max())
    high = max(high, low + 1)
    every = math.ceil((high - low) / 4)
    ticks = [(float(e), f"10{str(e).translate(_SUPERSCRIPTS)}") for e in range(low, high + 1, every)]
    return float(low), float(high), ticks


def _round_step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.75)


def _grid(ticks: Sequence[tuple[float, str]], place_y: Any) -> str:
    return "".join(
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{place_y(v):.1f}" y2="{place_y(v):.1f}"/>'
        f'<text class="tick" x="{LEFT - 7}" y="{place_y(v) + 4:.1f}" text-anchor="end">{escape(label)}</text>'
        for v, label in ticks
    )


def _x_axis(x: np.ndarray, place_x: Any) -> str:
    _, _, ticks = _axis(np.array([x.min(), x.max()]))
    inside = [(v, label) for v, label in ticks if x.min() - 1e-9 <= v <= x.max() + 1e-9 and v == round(v)]
    if len(inside) < 2:
        inside = [(float(v), short(float(v))) for v in dict.fromkeys((x.min(), x.max()))]
    return "".join(
        f'<text class="tick" x="{place_x(v):.1f}" y="{HEIGHT - 9}" text-anchor="{_anchor(place_x(v))}">{label}</text>'
        for v, label in inside
    )


def _anchor(at: float) -> str:
    return "end" if at > WIDTH - RIGHT - 12 else "middle"


def _path(xs: np.ndarray, ys: np.ndarray, style: str) -> str:
    """A path that is interrupted where a value is missing."""
    commands, pen_up = [], True
    for x, y in zip(xs, ys):
        if math.isfinite(y):
            commands.append(f"{'M' if pen_up else 'L'}{x:.1f} {y:.1f}")
        pen_up = not math.isfinite(y)
    return f'<path class="{style}" d="{"".join(commands)}"/>'


def _plot(name: str, title: str, parts: list[str], x: np.ndarray, place_x: Any, series: Sequence[Series]) -> Plot:
    at, _ = _thin(x, x, np.nanmean)
    values = [[short(float(v)) for v in _thin(x, s.values, np.nanmean)[1]] for s in series]
    known = [s.values[np.isfinite(s.values)] for s in series]
    legend = [(s.label, s.color, short(float(k[-1])) if len(k) else "–") for s, k in zip(series, known)]
    ends = "; ".join(
        f"{s.label} from {short(float(k[0]))} to {short(float(k[-1]))}" for s, k in zip(series, known) if len(k)
    )
    cursor = f'<line class="cursor" x1="0" x2="0" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
    svg = _svg(name, title, "".join([*parts, cursor]), HEIGHT, f"{ends}.")
    hover = {"at": [round(float(place_x(v)), 1) for v in at], "x": [f"{v:,.0f}" for v in at], "values": values}
    return Plot(svg, legend, hover)


def _svg(name: str, title: str, body: str, height: float, description: str = "") -> Markup:
    about = f'<title id="{escape(name)}-t">{escape(title)}</title>'
    labels = f"{name}-t"
    if description:
        about += f'<desc id="{escape(name)}-d">{escape(description)}</desc>'
        labels += f" {name}-d"
    return Markup(  # every text above went through escape()
        f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-labelledby="{escape(labels)}">{about}{body}</svg>'
    )
