"""A comparison as a table and as a picture: the gain over the untrained policy against what it cost."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from thinkdraw.runtime.files import atomic_file

WORDS = {"test": "in domain", "ood": "out of domain"}
SHOWN = {
    "pictures_sampled": "pictures sampled",
    "sequences_trained": "sequences trained",
    "reference_forwards": "reference forwards",
    "judge_calls": "judge calls",
    "tokens_trained": "tokens trained",
    "seconds": "seconds",
}
Rows = Mapping[str, Mapping[str, Any]]


def table(rows: Rows) -> str:
    """Markdown: a row per cell, points over the untrained policy in and out of domain, and what one seed cost."""
    splits = [split for split in WORDS if split in next(iter(rows.values()))]
    heads = [head for split in splits for head in (f"{WORDS[split]}, points", "95 % interval", "each seed")]
    lines = ["| | " + " | ".join([*heads, *SHOWN.values()]) + " |", "|---" * (len(heads) + len(SHOWN) + 1) + "|"]
    for name, row in rows.items():
        cells = []
        for found in (row[split] for split in splits):
            cells += [f"{100 * found['value']:+.1f}", f"{100 * found['low']:+.1f} – {100 * found['high']:+.1f}"]
            cells += [", ".join(f"{100 * value:+.1f}" for value in found["per_seed"])]
        cells += [f"{row[cost]:,.0f}" for cost in SHOWN]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    below = [name for name, row in rows.items() if name != "untrained" and row["test"]["low"] <= 0]
    if below:
        lines += ["", f"Not above the untrained policy (interval reaches 0): {', '.join(below)}."]
    for name, row in rows.items():
        if (drawn := row["pictures_drawn_per_test_picture"]) > 1:
            lines += ["", f"{name} draws {drawn} pictures for each one that it hands over, every time it is used."]
    return "\n".join(lines) + "\n"


def draw(rows: Rows, path: Path, costs: Sequence[str]) -> None:
    """A PNG: per cost one panel, gain in points with its 95 % interval; a row without training cost is a line."""
    import matplotlib  # here: it takes longer to import than all else in this file

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(
        1, len(costs), figsize=(5 * len(costs) + 2.2, 4.2), sharey=True, squeeze=False, layout="constrained"
    )
    trained = {name: row for name, row in rows.items() if row["sequences_trained"] > 0}
    idle = {name: row for name, row in rows.items() if name not in trained and name != "untrained"}
    for axis, cost in zip(axes[0], costs, strict=True):
        apart = max((row[cost] for row in trained.values()), default=0) / 60  # rows of the same cost stand side by side
        for index, (name, row) in enumerate(trained.items()):
            beside = sum(other[cost] == row[cost] for other in [*trained.values()][:index])
            for split, filled in (("test", True), ("ood", False)):
                if split in row:
                    value, low, high = (100 * row[split][key] for key in ("value", "low", "high"))
                    color, place = f"C{index}", row[cost] + apart * (beside + (0 if filled else 0.35))
                    axis.errorbar(
                        place, value, [[value - low], [high - value]], fmt="o", color=color, capsize=3, ms=7,
                        mfc=color if filled else "white", label=name if filled else None,
                    )  # fmt: skip
        for index, (name, row) in enumerate(idle.items()):
            axis.axhline(100 * row["test"]["value"], ls="--", color=f"C{len(trained) + index}", label=name)
        axis.axhline(0, color="0.6", lw=1)
        axis.set_xlabel(SHOWN.get(cost, cost))
        axis.set_xlim(left=0)
        axis.grid(alpha=0.25)
    axes[0][0].set_ylabel("points over the untrained policy")
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside right center", fontsize=8)
    figure.suptitle("filled: in domain · hollow: out of domain · bars: 95 % interval, seeds pooled", fontsize=9)
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=130)
    plt.close(figure)
