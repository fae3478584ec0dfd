"""`thinkdraw sample`: a rollout store from a checkpoint."""

from collections.abc import Sequence
from typing import Annotated

import typer

from thinkdraw.cli.grammar.completion import checkpoints
from thinkdraw.cli.grammar.options import AsJson, Count, DryRun, Out
from thinkdraw.cli.grammar.printing import print_store

USUAL_GROUPS = 64
USUAL_PROMPTS = "lab-geneval"


def sample(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="CHECKPOINT KEY=VALUE…",
            help="Checkpoint folder, run folder (its best one), Hugging Face id, or lab; then settings: group_size=8, "
            "rewards=[lab-detector], sampling.thought=inline, prompts=lab-compbench (lab-geneval, lab-dense, or a file of prompts).",
            autocompletion=checkpoints,
        ),
    ] = None,
    out: Out = None,
    count: Count = None,
    json_: AsJson = False,
    dry_run: DryRun = False,
) -> None:
    """Sample groups of thoughts and pictures into a rollout store.

    `score` judges them, as often as you like.     64 groups if no count is given. A store that was stopped goes on.

    Example: thinkdraw sample lab -o runs/store -n 64 group_size=8 rewards=[lab-detector]
    """
    from thinkdraw.cli.grammar.reading import config_file, overrides, print_config
    from thinkdraw.config import load_config
    from thinkdraw.recipes.sample import SampleConfig, run

    file, words = config_file(words)
    settings = overrides(words, ("policy",), {"out": out, "count": count})
    config = load_config(SampleConfig, file, settings if file else with_prompts(settings))
    if dry_run:
        return print_config(config)
    print_store(run(config), json_)


def with_prompts(settings: Sequence[str]) -> list[str]:
    """Write out `prompts=NAME`, and the usual prompts and count where none is given.

    The lab's first prompts are the same in a longer list, so that a larger count goes on with the same store.
    """
    from thinkdraw.cli.grammar.reading import setting, value_of

    count, name = value_of(settings, "count", USUAL_GROUPS), value_of(settings, "prompts", USUAL_PROMPTS)
    defaults = [] if any(text.partition("=")[0].strip() == "count" for text in settings) else [f"count={count}"]
    if isinstance(name, str):
        settings = [text for text in settings if text.partition("=")[0].strip() != "prompts"]
        family = name.removeprefix("lab-")
        if family == name:
            prompts: dict[str, object] = {"source": name}
        else:
            least = 2048 if family == "compbench" else 4096
            prompts = {"families": {family: 1.0}, "count": max(least, count) if isinstance(count, int) else least}
        defaults.append(setting("prompts", prompts))
    return [*defaults, *settings]
