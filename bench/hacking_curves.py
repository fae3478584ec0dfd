"""Draws `thinkdraw sweep lab_hacking`: the reward that is optimised beside the monitor that is not, and where the two part.

    python bench/hacking_curves.py runs/hacking --out docs/hacking.png

Values are those of the validation prompts. Prints, per run, the monitor's peak, the step from which the run would warn (as
`recipes/phase/validation.py` does), and both values at the end.
"""

import argparse
import json
from pathlib import Path

import matplotlib
import yaml

from thinkdraw.recipes.phase.monitor import OPTIMISED, OveroptimisationMonitor, ValidationSettings

matplotlib.use("Agg")
from matplotlib import pyplot as plt


def validations(run: Path) -> list[dict]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if row.get(OPTIMISED) is not None]


def parting(run: Path, rows: list[dict]) -> int | None:
    """The first step at which the two are apart at this validation and at the next."""
    settings = yaml.safe_load((run / "config.yaml").read_text())["validation"]
    watch = OveroptimisationMonitor(ValidationSettings.model_validate(settings))
    apart = [row["step"] for row in rows if watch.update(row, row["step"]) and watch.num_diverged == 2]
    return None if not apart else max(row["step"] for row in rows if row["step"] < apart[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweep", type=Path)
    parser.add_argument("--out", type=Path, default=Path("hacking.png"))
    asked = parser.parse_args()
    cells = sorted((path for path in (asked.sweep / "cells").iterdir() if path.is_dir()), reverse=True)
    runs = {cell.name: sorted(cell.glob("seed_*")) for cell in cells}
    columns = max(map(len, runs.values()))
    figure, axes = plt.subplots(
        len(cells), columns, figsize=(3.6 * columns, 2.7 * len(cells)), squeeze=False, sharex=True, sharey=True
    )
    print(
        "| run | detector's peak | part from step | last step | judge there | detector there |\n|---|---|---|---|---|---|"
    )
    for line, (name, folders) in enumerate(runs.items()):
        for axis, run in zip(axes[line], folders):
            rows = validations(run)
            monitor = next(key for key in rows[0] if key.startswith("monitor/"))
            steps, best = [row["step"] for row in rows], max(rows, key=lambda row: row[monitor])
            apart = parting(run, rows)
            axis.plot(steps, [row[OPTIMISED] for row in rows], color="C1", label="judge, optimised")
            axis.plot(steps, [row[monitor] for row in rows], color="C0", label="detector, watched")
            axis.plot(best["step"], best[monitor], "o", color="C0", ms=4)
            if apart is not None:
                axis.axvline(apart, color="0.6", ls=":", label="they part")
            axis.set_title(f"{name.replace('_', ' ')}, {run.name.replace('_', ' ')}", fontsize=9)
            last = rows[-1]
            print(
                f"| {name} {run.name} | {best[monitor]:.3f} at {best['step']} | {apart or 'never'} | {last['step']} | "
                f"{last[OPTIMISED]:.3f} | {last[monitor]:.3f} |"
            )
    axes[0][0].legend(fontsize=7)
    for axis in axes[-1]:
        axis.set_xlabel("phase")
    figure.tight_layout()
    figure.savefig(asked.out, dpi=110)
    print(f"\ncurves: {asked.out}")


if __name__ == "__main__":
    main()
