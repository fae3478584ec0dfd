"""Draws the entropies of `thinkdraw sweep lab_entropy`, with and without the controller, and says how long each stayed in its band.

    python bench/entropy_curves.py runs/entropy --out docs/entropy.png

Each run has a band of its own, ± `--band` nats around its entropies at the first update. Prints, per setting and modality, the
share of phases inside it and the largest distance from its middle, over all seeds.
"""

import argparse
import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

MODALITIES = {"entropy_text": "thought", "entropy_image": "picture"}


def rows_of(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweep", type=Path)
    parser.add_argument("--band", type=float, default=0.2)
    parser.add_argument("--out", type=Path, default=Path("entropy.png"))
    asked = parser.parse_args()
    cells = sorted(path for path in (asked.sweep / "cells").iterdir() if path.is_dir())
    settings = sorted({cell.name.partition("__")[0] for cell in cells})
    figure, axes = plt.subplots(
        len(MODALITIES) + 1, len(settings), figsize=(5.2 * len(settings), 8), squeeze=False, sharex=True
    )
    print(
        "| setting | controller | modality | phases inside the band | largest distance, nats |\n|---|---|---|---|---|"
    )
    for cell in cells:
        setting, _, mode = cell.name.partition("__")
        runs = [rows_of(run) for run in sorted(cell.glob("seed_*"))]
        column, color = settings.index(setting), {"fixed": "C1"}.get(mode, "C0")
        for line, (key, what) in enumerate(MODALITIES.items()):
            away = [[row[key] - rows[0][key] for row in rows] for rows in runs]
            flat = [abs(value) for values in away for value in values]
            inside = sum(value <= asked.band for value in flat) / len(flat)
            print(f"| {setting} | {mode} | {what} | {inside:.0%} | {max(flat):.2f} |")
            for number, values in enumerate(away):
                axes[line][column].plot(values, color=color, alpha=0.8, lw=1.2, label=mode if number == 0 else None)
            axes[line][column].axhspan(-asked.band, asked.band, color="0.9", zorder=0)
            axes[line][column].set_title(f"{setting}: {what}", fontsize=10)
            axes[line][column].set_ylabel("nats from the start")
        for rows in runs:
            axes[-1][column].plot([row["reward_mean"] for row in rows], color=color, alpha=0.8, lw=1.2)
        axes[-1][column].set(title=f"{setting}: reward", xlabel="phase", ylabel="mean reward")
    for axis in axes[0]:
        axis.legend(title="controller", fontsize=8)
    figure.tight_layout()
    figure.savefig(asked.out, dpi=110)
    print(f"\ncurves: {asked.out}")


if __name__ == "__main__":
    main()
