"""`thinkdraw quickstart`: base, SFT and GRPO on a laptop, each evaluated."""

from typing import Annotated

import typer

from thinkdraw.cli.grammar.options import DryRun, Out
from thinkdraw.cli.grammar.printing import interval, print_rows
from thinkdraw.runtime.json_types import JsonObject


def quickstart(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE…", help="Settings: seed=1, evaluation.prompts=96, grpo=[max_steps=40]."),
    ] = None,
    out: Out = None,
    dry_run: DryRun = False,
) -> None:
    """Train a model that thinks on a laptop: SFT, GRPO, evaluations, a report.

    It takes about ten minutes on two cores. A run that was stopped goes on.

    Example: thinkdraw quickstart seed=1 -o runs/second
    """
    from thinkdraw.cli.grammar.reading import print_config, read
    from thinkdraw.report import write_report
    from thinkdraw.runtime.formats.sealed import read_sealed
    from thinkdraw.studies.quickstart import QuickstartConfig, run

    config = read(QuickstartConfig, words, (), {"out": out})
    if dry_run:
        return print_config(config)
    folder = run(config)
    _print_stages(read_sealed(folder / "summary.json", "Run it again."))
    print(f"report: {write_report(folder)}")
    print(f'next: thinkdraw generate {folder / "grpo"} -p "a photo of a red circle and a blue star"')


def _print_stages(summary: JsonObject) -> None:
    from thinkdraw.studies.comparison_table import in_points

    stages = summary["stages"]
    tasks = list(next(iter(stages.values()))["per_task"])
    rows = [
        {"": task, **{name: interval(s["per_task"][task], "value") for name, s in stages.items()}} for task in tasks
    ]
    rows.append({"": "overall", **{name: interval(s, "score") for name, s in stages.items()}})
    print_rows(rows, False)
    for name, difference in summary["difference"].items():
        print(f"{name}: {in_points(difference)}")
    print(f"{summary['seconds']:.0f} s, peak memory {summary['peak_memory_gb']:.1f} GB, seed {summary['seed']}")
