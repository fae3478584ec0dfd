"""`thinkdraw compare`: runs side by side, each judged on the same test prompts."""

from typing import Annotated

import typer

from thinkdraw.cli.grammar.completion import paths
from thinkdraw.cli.grammar.options import DryRun, Out


def compare(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN… KEY=VALUE…",
            help="Run folders; those that differ only in the seed are one row. Then settings: best_of=4, reward=lab-judge, "
            "axes=[pictures_sampled,seconds], allow=[prompts], evaluation.prompts=96.",
            autocompletion=paths,
        ),
    ] = None,
    out: Out = None,
    dry_run: DryRun = False,
) -> None:
    """Judge runs on the same test prompts: what each gained, and at what cost.

    A gain is over the policy that all began with. Prints a table and draws a plot.

    Example: thinkdraw compare runs/quickstart/grpo runs/lab_dpo axes=[pictures_sampled,seconds]
    """
    from thinkdraw.cli.grammar.reading import print_config, read
    from thinkdraw.studies.compare import CompareConfig, run

    config = read(CompareConfig, words, ("runs…",), {"out": out})
    if dry_run:
        return print_config(config)
    folder = run(config)
    print((folder / "table.md").read_text(encoding="utf-8"))
    print(f"plot: {folder / 'comparison.svg'}")
