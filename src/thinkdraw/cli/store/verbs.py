"""`thinkdraw store`."""

from pathlib import Path
from typing import Annotated

import typer

from thinkdraw.cli.grammar.options import AsJson
from thinkdraw.cli.grammar.printing import print_store
from thinkdraw.errors import UserError


def store(
    action: Annotated[str, typer.Argument(help="info or export.")],
    path: Annotated[Path, typer.Argument(help="The folder of a rollout store.")],
    out: Annotated[Path | None, typer.Option(help="export: folder of rollouts.parquet and the pictures.")] = None,
    png: Annotated[bool, typer.Option("--png", help="export: decode the pictures, one PNG per row.")] = False,
    jsonl: Annotated[bool, typer.Option("--jsonl", help="export: rollouts.jsonl in place of parquet.")] = False,
    policy: Annotated[
        str | None, typer.Option(help="Checkpoint that decodes the pictures, if not the one that drew them.")
    ] = None,
    skip_damaged: Annotated[bool, typer.Option("--skip-damaged", help="export: leave damaged shards out.")] = False,
    json_: AsJson = False,
) -> None:
    """What a rollout store holds (info), or all of it as one flat file (export).

    Example: thinkdraw store export runs/store --out runs/flat --png
    """
    if action == "info":
        return print_store(path, json_)
    if action != "export":
        raise UserError(f"store {action!r}: one of info, export.")
    if out is None:
        raise UserError("store export needs --out FOLDER.")
    from thinkdraw.recipes.score import StoreDecoder
    from thinkdraw.rollouts import RolloutStore
    from thinkdraw.rollouts.export import export

    opened = RolloutStore.open(path)
    pictures = StoreDecoder(opened, policy).pictures if png else None
    print(export(opened, out, as_jsonl=jsonl, pictures=pictures, skip_damaged=skip_damaged))
