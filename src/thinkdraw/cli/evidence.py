"""`thinkdraw evidence`: the controls behind the quickstart's claim."""

from typing import Annotated

import typer

from thinkdraw.cli.grammar.options import DryRun, Out


def evidence(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE…", help="Settings: evaluation.prompts=96, grpo=[max_steps=40]."),
    ] = None,
    out: Out = None,
    dry_run: DryRun = False,
) -> None:
    """Run the controls behind the quickstart's claim.

    A second seed, SFT for RL's seconds, RL from lab-judge alone, RL without thoughts. It takes one to two hours on two cores;
    finished runs are kept.

    Example: thinkdraw evidence
    """
    from thinkdraw.cli.grammar.reading import print_config, read
    from thinkdraw.studies.evidence import EvidenceConfig, run

    config = read(EvidenceConfig, words, (), {"out": out})
    if dry_run:
        return print_config(config)
    print((run(config) / "table.md").read_text(encoding="utf-8"))
