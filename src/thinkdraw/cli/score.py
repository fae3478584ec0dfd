"""`thinkdraw score`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from thinkdraw.cli.grammar.options import AsJson
from thinkdraw.cli.grammar.printing import print_store


def score(
    store: Annotated[Path, typer.Argument(help="The folder of a rollout store.")],
    override: Annotated[
        list[str] | None, typer.Argument(help="key.sub=value, for instance reward.settings.strict_weight=1.")
    ] = None,
    reward: Annotated[str, typer.Option(help="A name of `thinkdraw list rewards`, or my_pkg.mine:MyReward.")] = "lab-detector",
    name: Annotated[str | None, typer.Option(help="Of the scores in the store, if not the reward's own.")] = None,
    policy: Annotated[
        str | None, typer.Option(help="Checkpoint that decodes the pictures, if not the one that drew them.")
    ] = None,
    device: Annotated[str, typer.Option()] = "auto",
    json_: AsJson = False,
) -> None:  # fmt: skip
    """Add a judge's scores to a rollout store; rows that have them are left alone.

    Example: thinkdraw score runs/store --reward lab-judge
    """
    from thinkdraw.config import load_config
    from thinkdraw.recipes import score as recipe

    values = {"store": str(store), "reward.name": reward, "name": name, "policy": policy, "device": device}
    given = [f"{key}={json.dumps(value)}" for key, value in values.items()]
    print_store(recipe.run(load_config(recipe.ScoreConfig, None, [*given, *(override or [])])), json_)
