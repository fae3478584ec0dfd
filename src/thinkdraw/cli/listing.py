"""`thinkdraw list`: what there is to choose from."""

import json
import shutil
import textwrap
from typing import Annotated

import typer

from thinkdraw.cli.grammar.completion import kinds
from thinkdraw.cli.grammar.options import AsJson
from thinkdraw.errors import UserError


def list_(
    what: Annotated[
        str | None,
        typer.Argument(
            help="configs, rewards, judges, benchmarks, objectives, policies or recipes; nothing names these.",
            autocompletion=kinds,
        ),
    ] = None,
    json_: AsJson = False,
) -> None:
    """Show what there is to choose from, and what each configuration costs.

    Example: thinkdraw list configs
    """
    from thinkdraw.cli.catalog import KINDS, Entry, entries

    if what is not None and what not in KINDS:
        raise UserError(f"list {what!r}: one of {', '.join(KINDS)}.")
    rows = [Entry(name, summary) for name, (summary, _) in KINDS.items()] if what is None else entries(what)
    if json_:
        print(json.dumps([row.as_dict() for row in rows], indent=2, ensure_ascii=False))
        return
    margin = max(len(row.name) for row in rows) + 2
    width = max(60, shutil.get_terminal_size((120, 24)).columns)
    for row in rows:
        text = f"{row.what} [{row.cost}]" if row.cost else row.what
        lines = textwrap.wrap(text, width - margin) or [""]
        print(f"{row.name:{margin}}{lines[0]}")
        for line in lines[1:]:
            print(" " * margin + line)
    if what is None:
        print("\nExample: thinkdraw list configs")
