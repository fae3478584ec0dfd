"""The frame of every chart: a view box with a title in words, a grid, and paths.

Colours come from the style sheet.
"""

import math
from collections.abc import Sequence

import numpy as np
from markupsafe import Markup, escape

from thinkdraw.charts.axes import AxisScale, axis, short

WIDTH, HEIGHT = 420, 210  # of the view box; the page scales it
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 10, 28


def svg(name: str, title: str, body: str, height: float, description: str = "") -> Markup:
    """Wrap a chart, with a title for screen readers. name: unique on the page."""
    about = f'<title id="{escape(name)}-t">{escape(title)}</title>'
    labels = f"{name}-t"
    if description:
        about += f'<desc id="{escape(name)}-d">{escape(description)}</desc>'
        labels += f" {name}-d"
    return Markup(  # every text above went through escape()
        f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-labelledby="{escape(labels)}">{about}{body}</svg>'
    )


def grid(ticks: Sequence[tuple[float, str]], scale_y: AxisScale, left: int = LEFT, right: int = RIGHT) -> str:
    """Draw a line across, with a label, for each tick of the vertical axis."""
    return "".join(
        f'<line class="grid" x1="{left}" x2="{WIDTH - right}" y1="{scale_y(v):.1f}" y2="{scale_y(v):.1f}"/>'
        f'<text class="tick" x="{left - 7}" y="{scale_y(v) + 4:.1f}" text-anchor="end">{escape(label)}</text>'
        for v, label in ticks
    )


def x_axis(x: np.ndarray, scale_x: AxisScale) -> str:
    """Draw labels at round whole numbers, or at both ends where fewer than two fit."""
    _, _, ticks = axis(np.array([x.min(), x.max()]))
    inside = [(v, label) for v, label in ticks if x.min() - 1e-9 <= v <= x.max() + 1e-9 and v == round(v)]
    if len(inside) < 2:
        inside = [(float(v), short(float(v))) for v in dict.fromkeys((x.min(), x.max()))]
    return "".join(
        f'<text class="tick" x="{scale_x(v):.1f}" y="{HEIGHT - 9}" text-anchor="{_anchor(scale_x(v))}">{label}</text>'
        for v, label in inside
    )


def _anchor(at: float) -> str:
    return "end" if at > WIDTH - RIGHT - 12 else "middle"


def path(xs: np.ndarray, ys: np.ndarray, style: str) -> str:
    """Draw a path that is interrupted where a value is missing."""
    commands, pen_up = [], True
    for x, y in zip(xs, ys):
        if math.isfinite(y):
            commands.append(f"{'M' if pen_up else 'L'}{x:.1f} {y:.1f}")
        pen_up = not math.isfinite(y)
    return f'<path class="{style}" d="{"".join(commands)}"/>'
