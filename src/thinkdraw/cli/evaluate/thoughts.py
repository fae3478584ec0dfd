"""`thinkdraw thoughts`."""

import json
from typing import Annotated

import typer

from thinkdraw.cli.grammar.options import AsJson, Checkpoint
from thinkdraw.cli.grammar.printing import interval, print_rows


def thoughts(
    ckpt: Checkpoint,
    count: Annotated[int, typer.Option(min=2, help="Prompts of the lab's GenEval test set.")] = 192,
    samples: Annotated[int, typer.Option(min=1, help="Pictures per prompt and condition.")] = 2,
    guidance_scale: Annotated[float, typer.Option(min=0.0)] = 1.0,
    seed: Annotated[int, typer.Option(min=0, max=1 << 62)] = 0,
    json_: AsJson = False,
) -> None:
    """Do thoughts matter? The same prompts and seeds drawn from the own, another prompt's, an empty and no thought.

    Example: thinkdraw thoughts runs/quickstart/grpo
    """
    from thinkdraw import api
    from thinkdraw.benchmarks.lab.thoughts import swap_study
    from thinkdraw.types import Sampling

    policy = api.load_policy(ckpt, precision="bf16")
    prompts = api.load_prompts("lab-geneval", "test", count)
    found = swap_study(policy, prompts, Sampling(guidance_scale=guidance_scale), samples=samples, seed=seed).summary()
    if json_:
        print(json.dumps(found, indent=2))
        return
    for part, what in (
        ("correct", "correct pictures"),
        ("differences", "paired difference"),
        ("followed", "claims of the thought that hold"),
    ):
        print_rows([{what: name, "": interval(row, "value")} for name, row in found[part].items()], False)
