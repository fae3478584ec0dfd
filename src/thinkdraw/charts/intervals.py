"""Dots with 95 % intervals, one row per task."""

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup, escape

from thinkdraw.charts.axes import axis, scale
from thinkdraw.charts.frame import RIGHT, WIDTH, svg


def interval_plot(
    name: str, title: str, rows: Sequence[tuple[str, Sequence[tuple[str, float, float, float]]]]
) -> Markup:
    """Draw one row of dots with 95 % intervals per task.

    rows: (task, [(class, value, low, high), …]), values in 0..1.
    """
    left, step, top = 128, 34, 8
    height = top + step * len(rows) + 26
    highest = max((max(v for v in dot[1:] if v == v) for _, dots in rows for dot in dots), default=1.0)
    _, high, ticks = axis(np.array([0.0, min(1.0, highest)]))
    scale_x = scale(0.0, high, left, WIDTH - RIGHT - 6)
    base = top + step * len(rows)
    elements = []
    for value, label in ticks:
        at = scale_x(value)
        elements.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{top}" y2="{base}"/>')
        elements.append(f'<text class="tick" x="{at:.1f}" y="{base + 17}" text-anchor="middle">{label}</text>')
    for i, (task, dots) in enumerate(rows):
        middle = top + step * (i + 0.5)
        bold = " strong" if i == 0 else ""
        elements.append(
            f'<text class="task{bold}" x="{left - 12}" y="{middle + 4}" text-anchor="end">{escape(task[:18])}</text>'
        )
        if i == 1:
            elements.append(f'<line class="rule" x1="0" x2="{WIDTH}" y1="{top + step}" y2="{top + step}"/>')
        for k, (style, value, low, high_end) in enumerate(dots):
            y = middle + (k - (len(dots) - 1) / 2) * 8
            tip = f"{value:.3f}" + (f" [{low:.3f}, {high_end:.3f}]" if low == low and high_end == high_end else "")
            whisker = ""
            if low == low and high_end == high_end:
                whisker = f'<line x1="{scale_x(low):.1f}" x2="{scale_x(high_end):.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'
            dot = f'<circle cx="{scale_x(value):.1f}" cy="{y:.1f}" r="3.6"/>'
            elements.append(f'<g class="dot {escape(style)}"><title>{escape(task)}: {tip}</title>{whisker}{dot}</g>')
    return svg(name, title, "".join(elements), height)
