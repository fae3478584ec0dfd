"""`thinkdraw sample`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from thinkdraw.cli.grammar.options import AsJson, Checkpoint
from thinkdraw.cli.grammar.printing import print_store


def sample(
    ckpt: Checkpoint,
    override: Annotated[
        list[str] | None, typer.Argument(help="key.sub=value, for instance sampling.top_p=0.9 or prompts_per_shard=8.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the store; a stopped one goes on.")] = Path("runs/store"),
    prompts: Annotated[
        str, typer.Option(help="lab-geneval, lab-compbench or lab-dense (training prompts), or a .txt or .jsonl file.")
    ] = "lab-geneval",
    count: Annotated[int, typer.Option(min=1, help="Groups: prompts in order, and around again.")] = 64,
    group_size: Annotated[int, typer.Option(min=1, help="Rollouts per prompt.")] = 8,
    reward: Annotated[
        list[str] | None, typer.Option(help="Score with this reward; may be given several times.")
    ] = None,
    thought: Annotated[str, typer.Option(help="inline, rewrite or off.")] = "inline",
    guidance_scale: Annotated[float, typer.Option(min=0.0)] = 1.0,
    seed: Annotated[int, typer.Option(min=0, max=1 << 62)] = 0,
    device: Annotated[str, typer.Option()] = "auto",
    precision: Annotated[
        str, typer.Option(help="bf16, or fp32 for log-probs that a trainer repeats exactly.")
    ] = "bf16",
    json_: AsJson = False,
) -> None:
    """Sample groups of thoughts and pictures into a rollout store, once; `score` judges them as often as you like.

    Example: thinkdraw sample lab --out runs/store --count 64 --group-size 8 --reward lab-detector
    """
    from thinkdraw.config import load_config
    from thinkdraw.recipes import sample as recipe

    family = prompts.removeprefix("lab-")
    # The lab's first prompts are the same in a longer list, so that a larger --count goes on with the same store.
    source = f"{{source: {json.dumps(prompts)}}}" if family == prompts else (
        f"{{families: {{{family}: 1.0}}, count: {max(2048 if family == 'compbench' else 4096, count)}}}"
    )  # fmt: skip
    values = {
        "policy": ckpt, "out": str(out), "count": count, "group_size": group_size, "rewards": reward or [],
        "sampling.thought": thought, "sampling.guidance_scale": guidance_scale, "seed": seed, "device": device,
        "precision": precision,
    }  # fmt: skip
    given = [f"prompts={source}", *(f"{key}={json.dumps(value)}" for key, value in values.items())]
    print_store(recipe.run(load_config(recipe.SampleConfig, None, [*given, *(override or [])])), json_)
