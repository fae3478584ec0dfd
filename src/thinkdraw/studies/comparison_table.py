"""A comparison as a table and a plot: gain over the untrained policy against cost."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from thinkdraw.charts.points import Level, Point, Points, points_plot, sheet
from thinkdraw.runtime.files import atomic_write_text
from thinkdraw.runtime.json_types import JsonMapping

WORDS = {"test": "in domain", "ood": "out of domain"}
SHOWN = {
    "pictures_sampled": "pictures sampled",
    "sequences_trained": "sequences trained",
    "reference_forwards": "reference forwards",
    "judge_calls": "judge calls",
    "tokens_trained": "tokens trained",
    "pictures_validated": "pictures validated",
    "seconds": "seconds",
}
Rows = Mapping[str, JsonMapping]


def table(rows: Rows, select: str = "last") -> str:
    """Make the Markdown table: gain in and out of domain, and the cost of a seed.

    Gains are points over the untrained policy. select: which checkpoint of each run was judged.
    """
    costs = {cost: word for cost, word in SHOWN.items() if any(row.get(cost) for row in rows.values())}
    splits = [split for split in WORDS if split in next(iter(rows.values()))]
    heads = [head for split in splits for head in (f"{WORDS[split]}, points", "95 % interval", "each seed")]
    lines = ["| | " + " | ".join([*heads, *costs.values()]) + " |", "|---" * (len(heads) + len(costs) + 1) + "|"]
    for name, row in rows.items():
        cells = []
        for gain in (row[split] for split in splits):
            cells += [f"{100 * gain['value']:+.1f}", _ends(gain, " – ")]
            cells += [", ".join(f"{100 * value:+.1f}" for value in gain["per_seed"])]
        cells += [f"{row[cost]:,.0f}" for cost in costs]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", f"Judged: the {select} checkpoint of each run; costs of one seed up to it."]
    if single := [name for name, row in rows.items() if len(row["seeds"]) == 1]:
        lines += ["", f"One training seed, so its interval is over prompts alone: {', '.join(single)}."]
    below = [name for name, row in rows.items() if name != "untrained" and not (row["test"]["low"] or 0) > 0]
    if below:
        lines += ["", f"Not above the untrained policy (interval reaches 0): {', '.join(below)}."]
    for name, row in rows.items():
        if (drawn := row["pictures_drawn_per_test_picture"]) > 1:
            lines += ["", f"{name} draws {drawn} pictures for each one that it hands over, every time it is used."]
    return "\n".join(lines) + "\n"


def differences_table(differences: Sequence[JsonMapping]) -> str:
    """Make the Markdown table of paired differences between every two rows, in points.

    In domain and out of domain, with 95 % intervals.
    """
    if not differences:
        return ""
    splits = [split for split in WORDS if split in differences[0]]
    lines = ["", f"| row minus row | {' | '.join(f'{WORDS[split]}, points' for split in splits)} |"]
    lines.append("|---" * (len(splits) + 1) + "|")
    for pair in differences:
        cells = [in_points(pair[split]).replace(" points", "") for split in splits]
        lines.append(f"| {pair['row']} − {pair['minus']} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def in_points(difference: JsonMapping) -> str:
    """Write a difference with its interval, in points."""
    if difference["value"] is None:
        return "no verdict"
    return f"{100 * difference['value']:+.1f} points [{_ends(difference, ', ')}]"


def _ends(difference: JsonMapping, between: str) -> str:
    """Write both ends of an interval in points, or that it is not known."""
    ends = [difference[key] for key in ("low", "high")]
    return "not known" if None in ends else between.join(f"{100 * end:+.1f}" for end in ends)


def draw(rows: Rows, path: Path, costs: Sequence[str]) -> None:
    """Draw an SVG with a panel per cost: gain in points with its 95 % interval.

    A row without training cost is a horizontal line.
    """
    trained = {name: row for name, row in rows.items() if row["sequences_trained"] > 0}
    idle = [name for name, row in rows.items() if name not in trained and name != "untrained"]
    levels = [Level(name, 100 * rows[name]["test"]["value"], len(trained) + i) for i, name in enumerate(idle)]
    charts = []
    for cost in costs:
        groups = _points(trained, cost)
        label = SHOWN.get(cost, cost)
        charts.append(
            points_plot(
                cost, f"Gain against {label}", groups, levels, x_label=label, y_label="points over the untrained policy"
            )
        )
    title = "filled: in domain · hollow: out of domain · bars: 95 % interval over prompts and seeds"
    atomic_write_text(path, sheet(title, charts, [*_points(trained, costs[0]), *levels]))


def _points(rows: Rows, cost: str) -> list[Points]:
    apart = max((row[cost] for row in rows.values()), default=0) / 60  # rows of the same cost stand side by side
    groups = []
    for index, (name, row) in enumerate(rows.items()):
        beside = sum(other[cost] == row[cost] for other in [*rows.values()][:index])
        points = []
        for split, is_hollow in (("test", False), ("ood", True)):
            if split in row:
                ends = [row[split][key] for key in ("value", "low", "high")]
                value, low, high = (math.nan if end is None else 100 * end for end in ends)
                x = row[cost] + apart * (beside + (0.35 if is_hollow else 0))
                points.append(Point(x, value, low, high, is_hollow))
        groups.append(Points(name, points, index))
    return groups
