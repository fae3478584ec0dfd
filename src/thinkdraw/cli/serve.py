"""`thinkdraw serve`: a reward over HTTP."""

from typing import Annotated

import typer

from thinkdraw.cli.grammar.completion import rewards
from thinkdraw.cli.grammar.options import DryRun


def serve(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="REWARD KEY=VALUE…",
            help="Name of `thinkdraw list rewards`, or my_pkg.mine:MyReward; then settings: port=8421, "
            "reward.settings.scorer=runs/clip, limits.side=1024.",
            autocompletion=rewards,
        ),
    ] = None,
    dry_run: DryRun = False,
) -> None:
    """Serve a reward over HTTP, for runs with reward.name=http, until stopped.

    Example: thinkdraw serve lab-clip port=8421
    """
    from thinkdraw.cli.grammar.reading import print_config, read, split
    from thinkdraw.errors import UserError
    from thinkdraw.serve.server import ServeConfig, run

    names, settings = split(words)
    if not names and not any(text.startswith("reward") for text in settings):
        raise UserError("the reward is missing: a name of `thinkdraw list rewards`. Example: thinkdraw serve lab-clip")
    config = read(ServeConfig, words, ("reward.name",))
    if dry_run:
        return print_config(config)
    run(config)
