"""`thinkdraw check`."""

import json
from typing import Annotated

import typer

from thinkdraw.cli.grammar.options import AsJson, Checkpoint
from thinkdraw.cli.grammar.printing import print_rows


def check(
    ckpt: Checkpoint,
    device: Annotated[str, typer.Option()] = "auto",
    precision: Annotated[str, typer.Option(help="fp32 or bf16.")] = "fp32",
    json_: AsJson = False,
) -> None:
    """Does this checkpoint's sampler agree with its trainer? The first thing to run on a new model.

    Example: thinkdraw check lab
    """
    from thinkdraw.api import load_policy
    from thinkdraw.policies.check import check_policy
    from thinkdraw.runtime.device import pick_device

    result = check_policy(load_policy(ckpt, device=str(pick_device(device)), precision=precision))
    if json_:
        print(json.dumps(result.as_dict(), indent=2))
    else:
        print_rows(
            [
                {"check": r.name, "found": r.measured, "wanted": r.expected, "": "ok" if r.ok else "FAILED"}
                for r in result.rows
            ],
            False,
        )
    if not result.ok:
        raise typer.Exit(1)
