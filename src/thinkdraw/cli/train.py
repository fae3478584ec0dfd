"""`thinkdraw train`."""

from typing import Annotated

import typer


def train(
    config: Annotated[
        str, typer.Argument(help="Name of a shipped configuration (`thinkdraw list configs`) or a YAML file.")
    ],
    override: Annotated[
        list[str] | None, typer.Argument(help="key.sub=value, for instance optimiser.learning_rate=2e-5.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the resolved configuration, explained, and stop.")
    ] = False,
) -> None:
    """Run a recipe: sft, grpo, preference, rejection, iterate, pretrain ….

    Example: thinkdraw train lab_grpo out=runs/mine group_size=16
    """
    from thinkdraw.recipes.catalog import read_config, run_config
    from thinkdraw.settings.commented import commented_yaml

    resolved = read_config(config, override or [])
    print(commented_yaml(resolved), end="") if dry_run else print(f"run folder: {run_config(resolved)}")
