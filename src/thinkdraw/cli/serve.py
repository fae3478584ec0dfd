"""`thinkdraw serve`."""

import json
from typing import Annotated

import typer


def serve(
    reward: Annotated[str, typer.Argument(help="A name of `thinkdraw list rewards`, or my_pkg.mine:MyReward.")],
    override: Annotated[
        list[str] | None,
        typer.Argument(help="key.sub=value, for instance reward.settings.scorer=runs/clip or limits.side=1024."),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen at; all but loopback need a token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one.")] = 8421,
    token_env: Annotated[str, typer.Option(help="Environment variable that holds the token.")] = "THINKDRAW_TOKEN",
    max_batch: Annotated[int, typer.Option(min=1, help="Rows that the judge sees at once.")] = 64,
) -> None:
    """Serve a reward over HTTP, for runs with reward.name=http, until stopped.

    Example: thinkdraw serve lab-clip --port 8421
    """
    from thinkdraw.config import load_config
    from thinkdraw.serve import server as recipe

    values = {"reward.name": reward, "host": host, "port": port, "token_env": token_env, "max_batch": max_batch}
    given = [f"{key}={json.dumps(value)}" for key, value in values.items()]
    recipe.run(load_config(recipe.ServeConfig, None, [*given, *(override or [])]))
