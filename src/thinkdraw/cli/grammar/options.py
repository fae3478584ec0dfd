"""Arguments and options that several verbs share."""

from typing import Annotated

import typer

Checkpoint = Annotated[
    str, typer.Argument(help="Checkpoint folder, run folder (its best one), Hugging Face id, or `lab`.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a program instead of a table.")]
