"""`thinkdraw report`."""

from pathlib import Path
from typing import Annotated

import typer


def report(
    run: Annotated[Path, typer.Argument(help="A run folder or the quickstart's folder.")],
    out: Annotated[
        Path | None, typer.Option(help="Where to write; report.html in the run folder if not given.")
    ] = None,
) -> None:
    """Write a run's report: one self-contained HTML page.

    Example: thinkdraw report runs/quickstart
    """
    from thinkdraw.report import write_report

    print(write_report(run, out))
