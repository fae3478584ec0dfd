"""`thinkdraw report`: a run as one HTML page."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from thinkdraw.cli.grammar.completion import paths


def report(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN", help="A run folder or the quickstart's folder; then out=FILE.", autocompletion=paths
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", help="Where to write; report.html in the run folder if not given."),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--watch", help="The same as watch=true: follow a run, and write the page as it grows.")
    ] = False,
) -> None:
    """Write a run's report: one self-contained HTML page.

    Example: thinkdraw report runs/quickstart
    """
    from thinkdraw.cli.grammar.reading import read
    from thinkdraw.report import ReportConfig, watch_run, write_report

    config = read(ReportConfig, words, ("run",), {"out": out, "watch": follow or None})
    if config.watch:
        watch_run(config.run, config.page, lambda line: print(line, file=sys.stderr, flush=True))
        print(config.page)
    else:
        print(write_report(config.run, config.out))
