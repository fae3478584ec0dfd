"""`thinkdraw compare`."""

import json
from pathlib import Path
from typing import Annotated

import typer


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Run folders; those that differ only in the seed are one row.")],
    out: Annotated[Path, typer.Option(help="Folder of table, plot and summary.")] = Path("runs/compare"),
    best_of: Annotated[int, typer.Option(min=0, help="Also judge best-of-N of the untrained policy; 0 leaves it out.")] = 4,
    reward: Annotated[str, typer.Option(help="What best-of-N chooses by.")] = "lab-detector",
    axis: Annotated[
        list[str] | None, typer.Option(help="Cost on an axis of the plot, for instance seconds; may be given several times.")
    ] = None,
    allow: Annotated[
        list[str] | None, typer.Option(help="Compare although the runs differ in this: base, prompts, sampling or validation.")
    ] = None,
    override: Annotated[
        list[str] | None, typer.Option("--set", help="key.sub=value, for instance evaluation.prompts=96.")
    ] = None,
) -> None:  # fmt: skip
    """Judge runs on the same test prompts; print and draw what each gained over the policy it began with, and at what cost.

    Example: thinkdraw compare runs/quickstart/grpo runs/lab_dpo --axis pictures_sampled --axis seconds
    """
    from thinkdraw.config import load_config
    from thinkdraw.studies import compare as recipe

    given = {"out": str(out), "runs": [str(run) for run in runs], "best_of": best_of or None, "reward.name": reward}
    given |= {"allow": allow or []} | ({"axes": axis} if axis else {})
    settings = [f"{key}={json.dumps(value)}" for key, value in given.items()]
    folder = recipe.run(load_config(recipe.CompareConfig, None, [*settings, *(override or [])]))
    print((folder / "table.md").read_text(encoding="utf-8"))
    print(f"plot: {folder / 'comparison.svg'}")
