"""`thinkdraw explain`: what a setting does."""

import json
from typing import Annotated

import typer

from thinkdraw.cli.grammar.options import AsJson


def explain(
    setting: Annotated[
        str | None,
        typer.Argument(help="A recipe or verb, RECIPE.key, a key alone, reward.NAME, judge.NAME or benchmark.NAME; none lists all."),
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print docs/config.md: all settings of all recipes.")] = False,
    json_: AsJson = False,
) -> None:  # fmt: skip
    """Say what a setting does, what it may be, and its default.

    Example: thinkdraw explain grpo.clip_high
    """
    from thinkdraw.settings.explain import as_rows, overview
    from thinkdraw.settings.explain import explain as explained

    if markdown:
        from thinkdraw.settings.page import page

        print(page(), end="")
    elif setting is None:
        print(overview())
    else:
        print(json.dumps(as_rows(setting), indent=2, ensure_ascii=False) if json_ else explained(setting))
