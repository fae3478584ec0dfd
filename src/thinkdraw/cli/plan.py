"""`thinkdraw plan`: what a configuration needs on a GPU."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from thinkdraw.cli.grammar.completion import configs
from thinkdraw.cli.grammar.options import AsJson, DryRun

if TYPE_CHECKING:
    from thinkdraw.planning.plan import Plan


def plan(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="CONFIG KEY=VALUE…",
            help="A shipped configuration of recipe grpo or sft, or a YAML file; then gpu=a100-80, gpus=8, prompt_tokens=60, and "
            "settings of the recipe: group_size=16.",
            autocompletion=configs,
        ),
    ] = None,
    json_: AsJson = False,
    dry_run: DryRun = False,
) -> None:
    """Say what a configuration will need: memory, seconds, and what makes it fit.

    Example: thinkdraw plan janus_pro_7b_grpo policy=janus-pro-7b gpu=a100-80 gpus=8
    """
    from thinkdraw.cli.grammar.reading import named_config, print_config, split
    from thinkdraw.config import load_config
    from thinkdraw.planning import plan as planner

    names, settings = split(words)
    ours = [text for text in settings if text.partition("=")[0].strip() in planner.PlanConfig.model_fields]
    about = load_config(planner.PlanConfig, None, ours)
    theirs = [text for text in settings if text not in ours]
    config = named_config([*names, *theirs], None, "thinkdraw plan lab_grpo")
    if dry_run:
        print_config(about)
        return print_config(config)
    needs = planner.plan(config, about.gpu, about.gpus, about.prompt_tokens)
    assert isinstance(config, planner.GrpoConfig | planner.SftConfig)  # `plan` refuses all others
    advice = planner.advice(config, needs, about.prompt_tokens)
    if json_:
        print(json.dumps(planner.as_dict(needs, advice), indent=2))
        return
    _print_plan(needs)
    print(advice)


def _print_plan(needs: "Plan") -> None:
    for name, sizes in (("sampling", needs.sampling), ("learning", needs.learning), ("saving", needs.saving)):
        if sizes:
            print(f"{name}, GB per GPU")
            for what, size in [*sizes.items(), ("sum", sum(sizes.values()))]:
                print(f"  {what:24} {size / 1e9:8.1f}")
    if needs.rollouts:
        print(f"rollouts per GPU: {needs.rollouts}, drawn {needs.at_once} at a time")
    if needs.uncounted:
        print(f"not counted, for their weights are not on this machine: judges {', '.join(needs.uncounted)}")
    if not needs.fits:
        return
    sampling, learning = needs.seconds_sampling, needs.seconds_learning
    print(f"seconds per phase: {sampling:.1f} sampling + {learning:.1f} learning = {sampling + learning:.1f}")
    if needs.rollouts:
        print(f"rollouts per second and GPU: {needs.rollouts / (sampling + learning):.2f}, judges not counted")
