"""`thinkdraw explain`: what a setting does."""

import json
from typing import Annotated

import typer

from thinkdraw.cli.grammar.options import AsJson


def explain(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="SETTING", help="A recipe or verb, RECIPE.key, a key, reward.NAME, judge.NAME or benchmark.NAME."),
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
    elif not words:
        print(overview())
    else:
        setting = "-".join(words)  # `store export` is one target
        print(json.dumps(as_rows(setting), indent=2, ensure_ascii=False) if json_ else explained(setting))
