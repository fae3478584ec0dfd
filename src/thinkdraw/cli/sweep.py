"""`thinkdraw sweep`: cells of settings over several seeds."""

from typing import Annotated

import typer

from thinkdraw.cli.grammar.completion import configs
from thinkdraw.cli.grammar.options import DryRun, Out


def sweep(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="CONFIG KEY=VALUE…",
            help="Name of a shipped sweep, or a YAML file, lab_objectives if left out; then settings: seeds=[0].",
            autocompletion=configs,
        ),
    ] = None,
    out: Out = None,
    dry_run: DryRun = False,
) -> None:
    """Train cells of settings over several seeds, and judge all alike.

    Prints one table with costs. How long a sweep takes, `thinkdraw list configs` says.

    Example: thinkdraw sweep lab_objectives policy=runs/quickstart/sft
    """
    from thinkdraw.cli.grammar.reading import overrides, print_config, split
    from thinkdraw.config import load_config
    from thinkdraw.recipes.catalog import find_config
    from thinkdraw.studies.sweep import SweepConfig, run

    names, settings = split(words)
    name, *more = names or ["lab_objectives"]
    config = load_config(SweepConfig, find_config(name), overrides([*more, *settings], (), {"out": out}))
    if dry_run:
        return print_config(config)
    folder = run(config)
    print((folder / "table.md").read_text(encoding="utf-8"))
    print(f"plot: {folder / 'comparison.svg'}")
