"""`thinkdraw plan`."""

import json
from typing import Annotated, Any

import typer


def plan(
    config: Annotated[str, typer.Argument(help="A shipped configuration of recipe grpo or sft, or a YAML file.")],
    override: Annotated[
        list[str] | None, typer.Argument(help="key.sub=value, for instance policy=janus-pro-7b or group_size=16.")
    ] = None,
    gpu: Annotated[str, typer.Option(help="a100-40, a100-80, h100, h100-pcie, h200, l4, l40s or rtx4090.")] = "h100",
    gpus: Annotated[int, typer.Option(min=1, help="How many, one process on each.")] = 1,
    prompt_tokens: Annotated[int, typer.Option(min=1, help="Of a prompt, with the form around it.")] = 40,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON for a program instead of a table.")] = False,
) -> None:
    """What a configuration will need: memory and seconds per step, and what to change where it does not fit.

    Example: thinkdraw plan janus_pro_7b_grpo policy=janus-pro-7b --gpu a100-80 --gpus 8
    """
    from thinkdraw.planning import plan as recipe
    from thinkdraw.recipes.catalog import read_config

    resolved: Any = read_config(config, override or [])
    found = recipe.plan(resolved, gpu, gpus, prompt_tokens)
    words = recipe.advice(resolved, found, prompt_tokens)
    if json_:
        print(json.dumps(recipe.as_dict(found, words), indent=2))
        return
    for name, parts in (("sampling", found.sampling), ("learning", found.learning), ("saving", found.saving)):
        if parts:
            print(f"{name}, GB per GPU")
            for part, size in [*parts.items(), ("sum", sum(parts.values()))]:
                print(f"  {part:24} {size / 1e9:8.1f}")
    if found.rollouts:
        print(f"rollouts per GPU: {found.rollouts}, drawn {found.at_once} at a time")
    if found.uncounted:
        print(f"not counted, for their weights are not on this machine: judges {', '.join(found.uncounted)}")
    if not found.fits:
        print(words)
        return
    seconds = found.seconds_sampling + found.seconds_learning
    print(
        f"seconds per phase: {found.seconds_sampling:.1f} sampling + {found.seconds_learning:.1f} learning = {seconds:.1f}"
    )
    if found.rollouts:
        print(f"rollouts per second and GPU: {found.rollouts / seconds:.2f}, judges not counted")
    print(words)
