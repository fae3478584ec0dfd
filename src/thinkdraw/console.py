"""Printing what strangers wrote: nothing in a text is markup or moves the cursor, and no console's encoding ends a program."""

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


def plain(value: object, style: str = "") -> Text:
    """A value for rich as it is written: brackets are brackets; control characters are shown escaped."""
    return Text(printable(value), style)


def print_what_the_console_can() -> None:
    """From now on what the console's encoding does not have is printed escaped, in place of an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
