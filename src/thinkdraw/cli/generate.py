"""`thinkdraw generate`: pictures of prompts, with their thoughts."""

import os
import sys
from typing import Annotated

import typer

from thinkdraw.cli.grammar.completion import checkpoints
from thinkdraw.cli.grammar.options import AsJson, DryRun, Out
from thinkdraw.cli.grammar.printing import print_rows
from thinkdraw.errors import UserError, printable


def generate(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="CHECKPOINT KEY=VALUE…",
            help="Checkpoint folder, run folder (its best one), Hugging Face id, or lab; then settings: samples=4, thought=off, "
            "guidance_scale=5, seed=1.",
            autocompletion=checkpoints,
        ),
    ] = None,
    prompt: Annotated[
        list[str] | None,
        typer.Option("--prompt", "-p", metavar="TEXT", help="What to draw; may be given several times."),
    ] = None,
    out: Out = None,
    json_: AsJson = False,
    dry_run: DryRun = False,
) -> None:
    """Draw prompts: PNG files, a contact sheet, and the thoughts.

    Example: thinkdraw generate runs/quickstart/grpo -p "a photo of a red circle and a blue star" samples=8
    """  # fmt: skip
    from thinkdraw.cli.grammar.reading import print_config, read
    from thinkdraw.studies.generate import GenerateConfig, run, unknown_words

    texts = [_argument_text(text) for text in prompt or []]
    if not texts and not any(word.startswith("prompts") for word in words or ()):
        raise UserError('there is nothing to draw. Add a prompt: -p "a photo of a red circle"')
    config = read(GenerateConfig, words, ("policy",), {"prompts": texts or None, "out": out})
    if dry_run:
        return print_config(config)
    if unknown := unknown_words(config.policy, config.prompts):
        print(
            f"thinkdraw: {config.policy} never read {', '.join(map(printable, unknown))} and will draw something else. "
            "It knows shapes and colours: a photo of two red circles.",
            file=sys.stderr,
        )
    rows = run(config)
    print_rows(rows, json_)


def _argument_text(text: str) -> str:
    """Decode typed text as UTF-8, also where the locale made Python read it otherwise."""
    from thinkdraw.data.text_files import check_text

    return check_text(os.fsencode(text).decode("utf-8", "surrogateescape"), f"prompt {printable(text)[:80]!r}")
