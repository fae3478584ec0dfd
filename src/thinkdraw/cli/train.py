"""`thinkdraw train`: any recipe, from a configuration."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from thinkdraw.cli.grammar.completion import configs
from thinkdraw.cli.grammar.options import DryRun, Out

if TYPE_CHECKING:
    from thinkdraw.config import StrictModel


def train(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="CONFIG KEY=VALUE…",
            help="Name of `thinkdraw list configs`, or a YAML file; then settings: group_size=16, optimiser.learning_rate=2e-5.",
            autocompletion=configs,
        ),
    ] = None,
    out: Out = None,
    dry_run: DryRun = False,
) -> None:
    """Run a recipe: sft, grpo, preference, rejection, iterate, pretrain ….

    A run that was stopped goes on; `thinkdraw explain KEY` says what a setting does.

    Example: thinkdraw train lab_grpo policy=runs/quickstart/sft -o runs/mine group_size=16
    """
    from thinkdraw.cli.grammar.reading import named_config, print_config
    from thinkdraw.recipes.catalog import run_config

    config = named_config(words, out, "thinkdraw train lab_grpo")
    if dry_run:
        return print_config(config)
    before = _steps_written(config)
    folder = run_config(config)
    if before and _steps_written(config) == before:
        print(
            f"run folder: {folder}, which had finished: there was nothing left to do. Look at it: thinkdraw report {folder}. "
            "Train on: a larger max_steps. Train anew: another out."
        )
    else:
        print(f"run folder: {folder}")


def _steps_written(config: "StrictModel") -> dict[str, int]:
    """Return the sizes of the logs of steps in the run's folder."""
    logs = Path(getattr(config, "out", "")).rglob("metrics.jsonl")
    return {str(log): log.stat().st_size for log in logs}
