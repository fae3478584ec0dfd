"""`thinkdraw sweep`."""

from typing import Annotated

import typer


def sweep(
    config: Annotated[str, typer.Argument(help="Name of a shipped sweep, or a YAML file.")] = "lab_objectives",
    override: Annotated[list[str] | None, typer.Argument(help="key.sub=value, for instance seeds=[0].")] = None,
) -> None:
    """Train cells of recipes and settings over several seeds, judge all on the same prompts, and print one table with costs.

    Example: thinkdraw sweep lab_objectives policy=runs/quickstart/sft
    """
    from thinkdraw.config import load_config
    from thinkdraw.recipes.catalog import find_config
    from thinkdraw.studies import sweep as recipe

    folder = recipe.run(load_config(recipe.SweepConfig, find_config(config), override or []))
    print((folder / "table.md").read_text(encoding="utf-8"))
    print(f"plot: {folder / 'comparison.svg'}")
