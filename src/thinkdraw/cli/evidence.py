"""`thinkdraw evidence`."""

from pathlib import Path
from typing import Annotated

import typer


def evidence(
    out: Annotated[Path, typer.Option(help="Folder of the runs; finished ones are kept.")] = Path("runs/evidence"),
) -> None:
    """The controls behind the quickstart's claim: a second seed, SFT for RL's seconds, RL from lab-judge alone, RL without thoughts.

    Takes one to two hours on two cores. Example: thinkdraw evidence
    """
    from thinkdraw.studies import evidence as recipe

    folder = recipe.run(recipe.EvidenceConfig(out=out))
    print((folder / "table.md").read_text(encoding="utf-8"))
