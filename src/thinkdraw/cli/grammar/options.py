"""Arguments and options that several verbs share."""

from pathlib import Path
from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a program instead of a table.")]
Count = Annotated[int | None, typer.Option("--count", "-n", metavar="N", help="The same as count=N.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the resolved settings and stop.")]
Out = Annotated[Path | None, typer.Option("--out", "-o", metavar="FOLDER", help="The same as out=FOLDER.")]
