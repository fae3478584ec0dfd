"""`thinkdraw thoughts`: whether thoughts matter for the pictures."""

import json
from typing import Annotated

import typer

from thinkdraw.cli.grammar.completion import checkpoints
from thinkdraw.cli.grammar.options import AsJson, Count, DryRun
from thinkdraw.cli.grammar.printing import interval, print_rows

TABLES = {
    "correct": "correct pictures",
    "differences": "paired difference",
    "followed": "claims of the thought that hold",
}


def thoughts(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="CHECKPOINT KEY=VALUE…",
            help="Checkpoint folder, run folder (its best one), Hugging Face id, or lab; then settings: samples=1, seed=1.",
            autocompletion=checkpoints,
        ),
    ] = None,
    count: Count = None,
    json_: AsJson = False,
    dry_run: DryRun = False,
) -> None:
    """Measure whether thoughts matter: swap them, and judge the pictures.

    Pictures are drawn from the own, another prompt's, an empty and no thought; prompts and seeds stay the same.
    The usual 192 prompts take about twenty minutes on two cores; -n 48 takes five.

    Example: thinkdraw thoughts runs/quickstart/grpo -n 48
    """
    from thinkdraw.cli.grammar.reading import print_config, read
    from thinkdraw.studies.thoughts import ThoughtsConfig, run

    config = read(ThoughtsConfig, words, ("policy",), {"count": count})
    if dry_run:
        return print_config(config)
    summary = run(config).summary()
    if json_:
        print(json.dumps(summary, indent=2))
        return
    for table, what in TABLES.items():
        print_rows([{what: name, "": interval(row, "value")} for name, row in summary[table].items()], False)
