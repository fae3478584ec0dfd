"""Draw docs/stages.png: the pictures that the quickstart keeps of its evaluation, by stage, right or wrong.

    python bench/stages_picture.py runs/quickstart --out docs/stages.png

Nothing is chosen: these are the first sample of the first four prompts of each task, same prompts and seeds for all stages.
"""

import argparse
import json
import textwrap
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from PIL import Image

STAGES = {"base": "base", "sft": "after SFT", "rl": "after RL"}
RIGHT, WRONG = "#1a7f37", "#d3453b"
COLUMNS = 12


def pictures(run: Path, stage: str) -> dict[int, tuple[dict, Path]]:
    """Map prompt number → (row of the evaluation, its picture), for the pictures that the run kept."""
    rows = [json.loads(line) for line in (run / "eval" / stage / "results.jsonl").read_text().splitlines()]
    kept = {row["prompt_index"]: row for row in rows if row["sample"] == 0}
    paths = {number: run / "eval" / "pictures" / stage / f"{number:05d}_0.png" for number in kept}
    return {number: (row, paths[number]) for number, row in kept.items() if paths[number].exists()}


def draw(run: Path, out: Path) -> None:
    stages = {stage: pictures(run, stage) for stage in STAGES}
    numbers = sorted(set.intersection(*(set(drawn) for drawn in stages.values())))
    # In the order of the benchmark, which goes through its tasks in turn; one block of lines per `COLUMNS` prompts.
    blocks = [numbers[i : i + COLUMNS] for i in range(0, len(numbers), COLUMNS)]
    figure = plt.figure(figsize=(1.1 * COLUMNS, 4.1 * len(blocks)), dpi=100)
    outer = figure.add_gridspec(len(blocks), 1, hspace=0.24, left=0.04, right=0.995, top=0.95, bottom=0.01)
    for block, shown in enumerate(blocks):
        inner = outer[block].subgridspec(len(STAGES), COLUMNS, hspace=0.06, wspace=0.06)
        for line, (stage, drawn) in enumerate(stages.items()):
            for column, number in enumerate(shown):
                row, path = drawn[number]
                axis = figure.add_subplot(inner[line, column])
                axis.imshow(Image.open(path).convert("RGB"), interpolation="nearest")
                axis.set(xticks=[], yticks=[])
                for spine in axis.spines.values():
                    spine.set(color=RIGHT if row["correct"] else WRONG, linewidth=2.2)
                mark, colour = ("✓", RIGHT) if row["correct"] else ("✗", WRONG)
                axis.text(0.95, 0.06, mark, transform=axis.transAxes, color=colour, ha="right", fontweight="bold")
                if line == 0:
                    prompt = textwrap.fill(row["prompt"].removeprefix("a photo of "), 16)
                    axis.set_title(prompt, fontsize=8, loc="left", pad=5)
                if column == 0:
                    right = sum(row["correct"] for row, _ in (drawn[number] for number in numbers))
                    axis.set_ylabel(f"{STAGES[stage]}\n{right} of {len(numbers)}", fontsize=8, fontweight="bold")
    figure.savefig(out, facecolor="white")
    Image.open(out).convert("P", palette=Image.Palette.ADAPTIVE, colors=64).save(out, optimize=True)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("run", type=Path)
    options.add_argument("--out", type=Path, default=Path("docs/stages.png"))
    chosen = options.parse_args()
    draw(chosen.run, chosen.out)


if __name__ == "__main__":
    main()
