"""`thinkdraw list`."""

import json
from typing import Annotated

import typer

from thinkdraw.cli.grammar.options import AsJson
from thinkdraw.errors import UserError


def list_(
    what: Annotated[
        str, typer.Argument(help="configs, rewards, judges, benchmarks, objectives, policies or recipes.")
    ] = "configs",
    json_: AsJson = False,
) -> None:
    """What there is to choose from.

    Example: thinkdraw list rewards
    """
    names = _registry(what)
    print(json.dumps(names, indent=2) if json_ else "\n".join(names))


def _registry(what: str) -> list[str]:
    match what:
        case "configs":
            from thinkdraw.recipes.catalog import shipped_configs

            return list(shipped_configs())
        case "recipes":
            from thinkdraw.recipes.catalog import RECIPES

            return list(RECIPES)
        case "rewards":
            from thinkdraw.rewards import REWARDS

            return list(REWARDS)
        case "judges":
            from thinkdraw.judges import JUDGES

            return list(JUDGES)
        case "benchmarks":
            from thinkdraw.benchmarks import BENCHMARKS
            from thinkdraw.lab.prompts import SPECS

            return [*BENCHMARKS, *("lab-" + family for family in SPECS)]
        case "objectives":
            from thinkdraw.objectives import POLICY_LOSSES

            return ["sft", *POLICY_LOSSES]
        case "policies":
            from thinkdraw.policies import POLICIES

            return list(POLICIES)
    raise UserError(f"list {what!r}: one of configs, rewards, judges, benchmarks, objectives, policies, recipes.")
