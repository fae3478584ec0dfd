"""`thinkdraw score`: a judge's scores for a rollout store."""

from typing import Annotated

import typer

from thinkdraw.cli.grammar.completion import store_or_reward
from thinkdraw.cli.grammar.options import AsJson, DryRun
from thinkdraw.cli.grammar.printing import print_store


def score(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="STORE [REWARD] KEY=VALUE…",
            help="The folder of a rollout store; a name of `thinkdraw list rewards`, or my_pkg.mine:MyReward, lab-detector if left "
            "out; then settings: reward.settings.strict_weight=1, name=strict.",
            autocompletion=store_or_reward,
        ),
    ] = None,
    json_: AsJson = False,
    dry_run: DryRun = False,
) -> None:
    """Add a judge's scores to a rollout store; rows that have them are left alone.

    Example: thinkdraw score runs/store lab-judge
    """
    from thinkdraw.cli.grammar.reading import print_config, read
    from thinkdraw.recipes.score import ScoreConfig, run

    config = read(ScoreConfig, words, ("store", "reward.name"))
    if dry_run:
        return print_config(config)
    print_store(run(config), json_)
