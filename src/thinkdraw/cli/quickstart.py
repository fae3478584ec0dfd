"""`thinkdraw quickstart`."""

from pathlib import Path
from typing import Annotated

import typer

from thinkdraw.cli.grammar.printing import interval, print_rows
from thinkdraw.runtime.json_types import JsonObject


def quickstart(
    out: Annotated[Path, typer.Option(help="Folder of the run; a stopped one goes on.")] = Path("runs/quickstart"),
    seed: Annotated[
        int, typer.Option(min=0, max=1 << 62, help="Of training; the test prompts and picture seeds stay.")
    ] = 0,
    override: Annotated[
        list[str] | None, typer.Argument(help="key.sub=value of the quickstart's own configuration.")
    ] = None,
) -> None:
    """The main job on a laptop: base, SFT on rationales, GRPO, an evaluation of each, a report.

    Example: thinkdraw quickstart --seed 1 --out runs/second
    """
    from thinkdraw.config import load_config
    from thinkdraw.report import write_report
    from thinkdraw.runtime.formats.sealed import read_sealed
    from thinkdraw.studies import quickstart as recipe

    config = load_config(recipe.QuickstartConfig, None, [f"out={out}", f"seed={seed}", *(override or [])])
    folder = recipe.run(config)
    _print_stages(read_sealed(folder / "summary.json", "Run it again."))
    print(f"report: {write_report(folder)}")


def _print_stages(summary: JsonObject) -> None:
    stages = summary["stages"]
    tasks = list(next(iter(stages.values()))["per_task"])
    rows = [
        {"": task, **{name: interval(s["per_task"][task], "value") for name, s in stages.items()}} for task in tasks
    ]
    rows.append({"": "overall", **{name: interval(s, "score") for name, s in stages.items()}})
    print_rows(rows, False)
    for name, found in summary["difference"].items():
        print(f"{name}: {100 * found['value']:+.1f} points [{100 * found['low']:+.1f}, {100 * found['high']:+.1f}]")
    print(f"{summary['seconds']:.0f} s, peak memory {summary['peak_memory_gb']:.1f} GB, seed {summary['seed']}")
