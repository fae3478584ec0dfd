"""How any text is printed: no markup, no cursor moves, no encoding errors."""

import io
import sys
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from thinkdraw.errors import printable


def print_rows(rows: Sequence[Mapping[str, object]], heading: str = "") -> None:
    """Print a table; the first row's keys are its columns."""
    console = Console()
    if heading:
        console.print(plain(heading), style="bold", highlight=False)
    table = Table(*(Column(plain(name)) for name in rows[0]), box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(plain(value) for value in row.values()))
    console.print(table)


def tell(text: str) -> None:
    """Print a line beside the result: on standard error, so that `--json` stays clean."""
    print(f"thinkdraw: {printable(text)}", file=sys.stderr, flush=True)


def plain(value: object, style: str = "") -> Text:
    """Make a text for rich without markup, its control characters escaped."""
    return Text(printable(value), style)


def escape_unprintable_output() -> None:
    """Print escapes, from now on, for characters that the console's encoding lacks."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
