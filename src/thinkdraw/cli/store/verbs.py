"""`thinkdraw store …`: what a rollout store holds, and all of it as one file."""

from pathlib import Path
from typing import Annotated

import typer

from thinkdraw.cli.grammar.completion import paths
from thinkdraw.cli.grammar.options import AsJson, DryRun, Out
from thinkdraw.cli.grammar.printing import print_store
from thinkdraw.cli.grammar.verb_group import Verb

store_app = typer.Typer(no_args_is_help=True, help="Look at a rollout store, or write it as one flat file.")


@store_app.command(cls=Verb)
def info(
    store: Annotated[Path, typer.Argument(metavar="STORE", help="The folder of a store.", autocompletion=paths)],
    json_: AsJson = False,
) -> None:
    """Show what a rollout store holds: rows, revisions, judges, damage.

    Example: thinkdraw store info runs/store
    """
    print_store(store, json_)


@store_app.command(cls=Verb)
def export(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="STORE KEY=VALUE…",
            help="The folder of a store; then settings: png=true, jsonl=true, policy=runs/mine, skip_damaged=true.",
            autocompletion=paths,
        ),
    ] = None,
    out: Out = None,
    dry_run: DryRun = False,
) -> None:
    """Write all of a rollout store as one flat file, with pictures if you like.

    Example: thinkdraw store export runs/store -o runs/flat png=true
    """
    from thinkdraw.cli.grammar.reading import print_config, read
    from thinkdraw.recipes.score import StoreDecoder
    from thinkdraw.rollouts import RolloutStore
    from thinkdraw.rollouts.export import ExportConfig
    from thinkdraw.rollouts.export import export as write_flat

    config = read(ExportConfig, words, ("store",), {"out": out})
    if dry_run:
        return print_config(config)
    store = RolloutStore.open(config.store)
    pictures = StoreDecoder(store, config.policy).pictures if config.png else None
    print(write_flat(store, config.out, as_jsonl=config.jsonl, pictures=pictures, skip_damaged=config.skip_damaged))
