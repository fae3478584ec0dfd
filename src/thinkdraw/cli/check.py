"""`thinkdraw check`: whether a checkpoint's sampler agrees with its trainer."""

import json
from typing import Annotated

import typer

from thinkdraw.cli.grammar.completion import checkpoints
from thinkdraw.cli.grammar.options import AsJson, DryRun
from thinkdraw.cli.grammar.printing import print_rows


def check(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="CHECKPOINT KEY=VALUE…",
            help="Checkpoint folder, run folder (its best one), Hugging Face id, or lab; then settings: precision=bf16.",
            autocompletion=checkpoints,
        ),
    ] = None,
    json_: AsJson = False,
    dry_run: DryRun = False,
) -> None:
    """Check that a checkpoint's sampler agrees with its trainer.

    It is the first thing to run on a new model.

    Example: thinkdraw check lab
    """
    from thinkdraw.api import load_policy
    from thinkdraw.cli.grammar.reading import print_config, read
    from thinkdraw.policies.check import CheckConfig, check_policy
    from thinkdraw.runtime.device import pick_device

    config = read(CheckConfig, words, ("policy",))
    if dry_run:
        return print_config(config)
    policy = load_policy(
        config.policy, device=str(pick_device(config.device)), precision=config.precision, dtype=config.dtype
    )
    result = check_policy(policy)
    if json_:
        print(json.dumps(result.as_dict(), indent=2))
    else:
        rows = [
            {"check": r.name, "found": r.measured, "wanted": r.expected, "": "ok" if r.ok else "FAILED"}
            for r in result.rows
        ]
        print_rows(rows, False)
    if not result.ok:
        raise typer.Exit(1)
