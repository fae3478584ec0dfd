"""Points with intervals over two axes, and sheets of such charts as files."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape

from thinkdraw.charts.axes import AxisScale, axis, scale
from thinkdraw.charts.frame import WIDTH, grid, path, svg
from thinkdraw.charts.style import NUM_COLORS, STYLE

HEIGHT = 300
LEFT, RIGHT, TOP, BOTTOM = 58, 18, 12, 46
LINE = 17  # height of a legend's line
LEGEND_WIDTH = 250


@dataclass(frozen=True)
class Point:
    """A point. low, high: its interval, NaN for none. note: a few letters beside it."""

    x: float
    y: float
    low: float = math.nan
    high: float = math.nan
    is_hollow: bool = False
    note: str = ""


@dataclass(frozen=True)
class Points:
    """A series of points. index: gives colour and shape.

    The seventh is square, in the colour of the first.
    """

    label: str
    points: Sequence[Point]
    index: int
    is_joined: bool = False

    @property
    def style(self) -> str:
        return f"c{self.index % NUM_COLORS + 1}"


@dataclass(frozen=True)
class Level:
    """A dashed line across at y."""

    label: str
    y: float
    index: int

    @property
    def style(self) -> str:
        return f"c{self.index % NUM_COLORS + 1}"


def points_plot(
    name: str,
    title: str,
    groups: Sequence[Points],
    levels: Sequence[Level] = (),
    *,
    x_label: str,
    y_label: str,
    diagonal: bool = False,
) -> Markup:
    """Draw series of points; both axes begin at zero or below.

    diagonal: draw y = x over 0..1, as reliability diagrams do.
    """
    points = [point for group in groups for point in group.points]
    unit = [1.0] if diagonal else []
    low_x, high_x, ticks_x = axis(np.array([0.0, *unit, *(p.x for p in points)]))
    heights = [value for p in points for value in (p.y, p.low, p.high)] + [level.y for level in levels]
    low_y, high_y, ticks_y = axis(np.array([0.0, *unit, *heights]))
    scale_x, scale_y = scale(low_x, high_x, LEFT, WIDTH - RIGHT), scale(low_y, high_y, HEIGHT - BOTTOM, TOP)
    elements = [grid(ticks_y, scale_y, LEFT, RIGHT)]
    elements += [
        f'<text class="tick" x="{scale_x(v):.1f}" y="{HEIGHT - BOTTOM + 17}" text-anchor="middle">{label}</text>'
        for v, label in ticks_x
    ]
    elements.append(
        f'<text class="tick" x="{(LEFT + WIDTH) / 2}" y="{HEIGHT - 8}" text-anchor="middle">{escape(x_label)}</text>'
    )
    middle = (TOP + HEIGHT - BOTTOM) / 2
    elements.append(
        f'<text class="tick" transform="translate(13 {middle}) rotate(-90)" text-anchor="middle">{escape(y_label)}</text>'
    )
    elements.append(_guide(scale_x, scale_y, (low_x, 0.0), (high_x, 0.0), "c0"))
    if diagonal:
        elements.append(_guide(scale_x, scale_y, (0.0, 0.0), (1.0, 1.0), "c0"))
    elements += [_guide(scale_x, scale_y, (low_x, v.y), (high_x, v.y), f"dashed {v.style}", v.label) for v in levels]
    for group in groups:
        if group.is_joined:
            xs, ys = (np.array([getattr(p, key) for p in group.points]) for key in ("x", "y"))
            elements.append(path(scale_x(xs), scale_y(ys), f"line {group.style}"))
        elements += [_point(point, group, scale_x, scale_y) for point in group.points]
    return svg(name, title, "".join(elements), HEIGHT)


def sheet(title: str, charts: Sequence[Markup], legend: Sequence[Points | Level]) -> str:
    """Draw charts side by side as a file of its own.

    The legend is on the right, the title above, the style sheet inside.
    """
    top, width = 30, WIDTH * len(charts) + LEGEND_WIDTH
    height = top + max(HEIGHT, LINE * len(legend) + 10)
    elements = [f'<rect width="{width}" height="{height}" style="fill: var(--paper)"/>']
    elements.append(f'<text class="task" x="{LEFT}" y="19">{escape(title)}</text>')
    for i, chart in enumerate(charts):
        inner = str(chart).replace(
            "<svg ", f'<svg x="{i * WIDTH}" y="{top}" width="{WIDTH}" height="{HEIGHT}" overflow="visible" ', 1
        )
        elements.append(inner)
    for i, entry in enumerate(legend):
        x, y = WIDTH * len(charts) + 10, top + 14 + i * LINE
        line = f'<line class="guide dashed" x1="{x - 7}" x2="{x + 7}" y1="{y}" y2="{y}"/>'
        shape = line if isinstance(entry, Level) else _mark(x, y, entry.index)
        elements.append(f'<g class="dot {entry.style}">{shape}</g>')
        elements.append(f'<text class="tick" x="{x + 13}" y="{y + 4}">{escape(entry.label)}</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">'
        f"<style>{STYLE}</style>{''.join(elements)}</svg>\n"
    )


def _point(point: Point, group: Points, scale_x: AxisScale, scale_y: AxisScale) -> str:
    x, y = scale_x(point.x), scale_y(point.y)
    has_interval = math.isfinite(point.low) and math.isfinite(point.high)
    range_ = f" [{point.low:.3g}, {point.high:.3g}]" if has_interval else ""
    tip = f"<title>{escape(group.label)}: {point.y:.3g}{range_}</title>"
    whisker = ""
    if has_interval:
        whisker = f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{scale_y(point.low):.1f}" y2="{scale_y(point.high):.1f}"/>'
    note = f'<text class="note" x="{x + 6:.1f}" y="{y + 11:.1f}">{escape(point.note)}</text>' if point.note else ""
    hollow = " hollow" if point.is_hollow else ""
    return f'<g class="dot {group.style}{hollow}">{tip}{whisker}{_mark(x, y, group.index)}</g>{note}'


def _mark(x: float, y: float, index: int) -> str:
    if index // NUM_COLORS % 2:
        return f'<rect class="mark" x="{x - 3.6:.1f}" y="{y - 3.6:.1f}" width="7.2" height="7.2"/>'
    return f'<circle class="mark" cx="{x:.1f}" cy="{y:.1f}" r="4"/>'


def _guide(
    scale_x: AxisScale,
    scale_y: AxisScale,
    start: tuple[float, float],
    end: tuple[float, float],
    style: str,
    tip: str = "",
) -> str:
    (x1, y1), (x2, y2) = ((scale_x(x), scale_y(y)) for x, y in (start, end))
    title = f"<title>{escape(tip)}</title>" if tip else ""
    return f'<line class="guide {style}" x1="{x1:.1f}" x2="{x2:.1f}" y1="{y1:.1f}" y2="{y2:.1f}">{title}</line>'
