"""`thinkdraw export`."""

from pathlib import Path
from typing import Annotated

import typer

from thinkdraw.cli.grammar.completion import paths
from thinkdraw.cli.grammar.options import DryRun


def export(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN KEY=VALUE…",
            help="A run folder; then settings: to=hf|deepseek|peft, evaluations=[…], push=OWNER/NAME.",
            autocompletion=paths,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FOLDER", help="Where to write; RUN/export_LAYOUT if not given."),
    ] = None,
    dry_run: DryRun = False,
) -> None:
    """Write a run's model for others, with a model card.

    Example: thinkdraw export runs/quickstart/grpo to=hf evaluations=[runs/quickstart/eval/rl]
    """
    from thinkdraw.cli.grammar.reading import print_config, read
    from thinkdraw.publishing import export as publishing

    config = read(publishing.ExportConfig, words, ("run",), {"out": out})
    if dry_run:
        return print_config(config)
    print(f"exported to {publishing.export(config)}")
