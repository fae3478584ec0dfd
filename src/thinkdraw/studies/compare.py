"""Compare runs on the same test prompts: gain over their common start, and cost.

    thinkdraw compare runs/objectives/cells/dpo/seed_0 runs/objectives/cells/dpo/seed_1 runs/lab_grpo

Every run is compared with the policy that all began with. Runs that differ in nothing but the seed are one row, with their
pictures pooled. Best-of-N of the untrained policy, by the same reward, is a row too: training has to beat it. One rule
(`select`) chooses the checkpoint of every run, and a run's costs are those up to that checkpoint.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Literal

from pydantic import Field

from thinkdraw.benchmarks.lab.benchmark import Split, compare, evaluate_lab
from thinkdraw.config import StrictModel, save_config
from thinkdraw.errors import UserError
from thinkdraw.policies.drawing import choose_drawing
from thinkdraw.policies.opening import load_trained, policy_path, run_checkpoint
from thinkdraw.rewards.opening import RewardSettings, open_reward
from thinkdraw.runtime.checkpoint import checkpoint_step
from thinkdraw.runtime.files import atomic_write_json, atomic_write_text, only_writer_of_out
from thinkdraw.runtime.formats import read_json_object, read_yaml_object
from thinkdraw.runtime.formats.sealed import read_sealed
from thinkdraw.runtime.json_types import JsonObject
from thinkdraw.runtime.tracking import MetricsLog
from thinkdraw.search import BestOfN, CachedDrawer
from thinkdraw.studies.comparison_table import differences_table, draw, table
from thinkdraw.studies.quickstart import EvaluationSettings
from thinkdraw.training.folder import STARTED
from thinkdraw.training.ledger import COSTS
from thinkdraw.types import Drawer, Policy, Sampling

Fact = Literal["base", "prompts", "sampling", "validation"]
Select = Literal["last", "best"]
Cost = Literal[
    "pictures_sampled",
    "sequences_trained",
    "reference_forwards",
    "judge_calls",
    "tokens_sampled",
    "tokens_trained",
    "pictures_validated",
    "seconds",
]
Folders = dict[Split, Path]


class JudgingSettings(StrictModel):
    """How all runs of a comparison are judged."""

    best_of: int | None = Field(
        default=4,
        ge=2,
        description="Also judge the untrained policy drawing N pictures per prompt and keeping the best; null "
        "leaves that out.",
    )
    reward: RewardSettings = Field(
        default=RewardSettings(), description="The reward by which best-of-N chooses its picture."
    )
    best_of_by: dict[str, RewardSettings] = Field(
        default={},
        description="Several rows of best-of-N, {label: reward}, in place of the one by `reward`; empty makes one row.",
    )
    select: Select = Field(
        default="last",
        description="Checkpoint of every run that is judged: its last, or the best by validation, which all must "
        "have done alike.",
    )
    evaluation: EvaluationSettings = Field(
        default=EvaluationSettings(questions_per_type=0),
        description="Test prompts, pictures and seeds that every run is judged with.",
    )
    out_of_domain_prompts: int = Field(
        default=192, ge=0, description="Out-of-domain prompts that every run is judged with besides; 0 leaves them out."
    )
    axes: list[Cost] = Field(
        default=["pictures_sampled", "sequences_trained"],
        min_length=1,
        description="Costs on the horizontal axis of the plot, one panel for each.",
    )


class CompareConfig(JudgingSettings):
    """Settings of a comparison of runs."""

    recipe: Literal["compare"] = Field(
        default="compare", description="Names the recipe that this configuration is for; always `compare`."
    )
    out: Path = Field(
        default=Path("runs/compare"),
        description="Folder of table, plot and summary; what is judged already is not judged again.",
    )
    runs: list[Path] = Field(
        min_length=1, description="Run folders to compare; those that differ only in the seed make one row."
    )
    allow: list[Fact] = Field(
        default=[],
        description="Compare runs although they differ in this: base (the policy they began with), prompts, "
        "sampling or validation.",
    )


@dataclass(frozen=True)
class FinishedRun:
    """A run folder as a comparison reads it.

    started: what the run began with, see `RunFolder.describe`. checkpoint: the one that is judged. spent: the ledger at that
    checkpoint.
    """

    folder: Path
    config: JsonObject
    started: JsonObject
    checkpoint: Path
    spent: dict[str, float]

    @classmethod
    def read(cls, folder: Path, select: Select = "last") -> "FinishedRun":
        """Read a run folder.

        Raises UserError for a folder that is no run's, a run without a step, and one without the checkpoint to judge.
        """
        way_out = (
            f"{folder} is not a run that can be compared. Give folders that `thinkdraw train` wrote with SFT, GRPO, "
            "preference or rejection."
        )
        config = read_yaml_object(folder / "config.yaml", way_out)
        started = read_json_object(folder / STARTED, way_out)
        rows = MetricsLog.read(folder / "metrics.jsonl")
        if not rows:
            raise UserError(f"{folder} has no step in metrics.jsonl yet. Let the run make one: thinkdraw train.")
        checkpoint = run_checkpoint(folder, select)
        if checkpoint is None:
            raise UserError(
                f"select=best: {folder} never validated, so its last checkpoint would be compared with the best of others. "
                "Set select=last."
            )
        step = checkpoint_step(checkpoint) or 0
        spent = [row for row in rows if row["step"] <= step][-1]
        return cls(folder, config, started, checkpoint, {name: spent.get(name, 0) for name in (*COSTS, "seconds")})

    @property
    def group(self) -> str:
        """Equal for runs that differ in nothing but the seed."""
        return json.dumps({k: v for k, v in self.config.items() if k not in ("out", "seed")}, sort_keys=True)

    @property
    def name(self) -> str:
        """The name of its row: the folder's, or of the folder above `seed_…`."""
        folder = self.folder.resolve()
        return folder.parent.name if folder.name.startswith("seed_") else folder.name


@only_writer_of_out
def run(config: CompareConfig, say: Callable[[str], None] = print) -> Path:
    """Judge what is not judged yet; write summary.json, table.md and comparison.svg.

    Raises UserError for runs that cannot be compared.
    """
    save_config(config, config.out / "config.yaml")
    groups: dict[str, list[FinishedRun]] = {}
    for finished in (FinishedRun.read(folder, config.select) for folder in config.runs):
        groups.setdefault(finished.group, []).append(finished)
    named: dict[str, list[FinishedRun]] = {}
    for runs in groups.values():
        named[runs[0].name if runs[0].name not in named else str(runs[0].folder)] = runs
    return compare_groups(named, config, config.out, config.allow, {}, say)


def compare_groups(
    groups: Mapping[str, Sequence[FinishedRun]], settings: JudgingSettings, out: Path, allow: Sequence[Fact],
    about: JsonObject, say: Callable[[str], None],
) -> Path:  # fmt: skip
    """Judge groups of runs, and write the comparison into `out`.

    groups: name of a row → its runs, one per seed. about: comes first in summary.json.
    """
    runs = [run for group in groups.values() for run in group]
    refuse_unlike(runs, allow)
    if settings.select == "best" and "validation" not in allow:
        _refuse_other_validation(runs)
    base = policy_path(runs[0].config["policy"])
    folders: Folders = {split: out / "eval" / split / "untrained" for split in _splits(settings)}
    beginning = load_trained(base)
    drawing = _drawing(beginning, settings, "untrained", say)
    beginning = CachedDrawer(beginning)
    untrained = _evaluate(beginning, drawing, settings, folders)
    rows = {"untrained": _row(settings, [untrained], untrained, [])}
    judged: dict[str, list[Folders]] = {}  # by row; a folder for each training seed
    for by, reward in (settings.best_of_by or {"": settings.reward}).items() if settings.best_of else ():
        assert settings.best_of
        name = f"best of {settings.best_of}" + (f" by {by}" if by else "")
        chooser = BestOfN(beginning, open_reward(reward.name, **reward.settings), settings.best_of)
        folders = {split: out / "eval" / split / name.replace(" ", "-") for split in _splits(settings)}
        judged[name] = [_evaluate(chooser, drawing, settings, folders)]
        rows[name] = _row(settings, judged[name], untrained, [], drawn=settings.best_of)
        say(_line(name, rows[name]))
    for name, group in groups.items():
        judged[name] = []
        for run in group:
            policy = load_trained(run.checkpoint)
            how = _drawing(policy, settings, name, say if run is group[0] else None)
            judged[name].append(_evaluate(policy, how, settings, _evaluation_folders(run, settings)))
        rows[name] = _row(settings, judged[name], untrained, group)
        say(_line(name, rows[name]))
    differences = [
        {"row": a, "minus": b} | {split: _difference(judged[a], judged[b], split) for split in _splits(settings)}
        for a, b in combinations(judged, 2)
    ]
    started = {key: runs[0].started[key] for key in ("base", "prompts")}
    summary = {**about, **started, "select": settings.select, "rows": rows, "differences": differences}
    atomic_write_json(out / "summary.json", summary)
    atomic_write_text(out / "table.md", table(rows, settings.select) + differences_table(differences))
    draw(rows, out / "comparison.svg", settings.axes)
    return out


def refuse_unlike(runs: Sequence[FinishedRun], allow: Sequence[Fact] = ()) -> None:
    """Raise UserError unless all runs began with one policy, prompts and sampling.

    The facts in `allow` may differ.
    """
    facts: tuple[Fact, ...] = ("base", "prompts", "sampling")  # of started.json
    for fact in (f for f in facts if f not in allow):
        first = runs[0]
        for run in runs[1:]:
            if run.started[fact] != first.started[fact]:
                raise UserError(
                    f"{first.folder} and {run.folder} differ in {fact}: {_short(first.started[fact])} and "
                    f"{_short(run.started[fact])}. Compare runs with the same {fact}, or set allow=[{fact}]."
                )


def _drawing(policy: Policy, settings: JudgingSettings, name: str, say: Callable[[str], None] | None) -> Sampling:
    """Choose how a row's policy draws: as trained, with the evaluation's changes."""
    drawing = choose_drawing(policy, settings.evaluation.sampling, settings.evaluation.drawing, of_several=True)
    if say is not None:
        say(f"{name} {drawing.line()}")
    return drawing.sampling


def _evaluate(policy: Drawer, sampling: Sampling, settings: JudgingSettings, folders: Folders) -> Folders:
    """Draw and judge what is not judged yet, in domain and out of domain."""
    e = settings.evaluation
    for split, folder in folders.items():
        evaluate_lab(policy, e.family, split, _splits(settings)[split], e.samples, sampling, e.seed, folder)
    return folders


def _splits(settings: JudgingSettings) -> dict[Split, int]:
    """Split → number of prompts."""
    counts: dict[Split, int] = {"test": settings.evaluation.prompts, "ood": settings.out_of_domain_prompts}
    return {split: count for split, count in counts.items() if count}


def _evaluation_folders(run: FinishedRun, settings: JudgingSettings) -> Folders:
    e = settings.evaluation
    return {
        split: run.folder / "eval" / f"lab-{e.family}-{split}-{count}x{e.samples}-{run.checkpoint.name}"
        for split, count in _splits(settings).items()
    }


def _row(
    settings: JudgingSettings,
    judged: Sequence[Folders],
    untrained: Folders,
    runs: Sequence[FinishedRun],
    drawn: int = 1,
) -> JsonObject:
    """Make a row: gain over the untrained policy, and the average cost of a seed.

    The gain is of all seeds together, and of each alone.
    drawn: pictures drawn for each test picture; N for best-of-N.
    """
    row: JsonObject = {
        name: sum(run.spent[name] for run in runs) / len(runs) if runs else 0 for name in (*COSTS, "seconds")
    }
    row |= {"pictures_drawn_per_test_picture": drawn, "seeds": [run.config["seed"] for run in runs]}
    for split, count in _splits(settings).items():
        each = [compare(folders[split], untrained[split]).value for folders in judged]
        row[split] = _difference(judged, [untrained], split) | {"per_seed": each}
        row[split] |= {
            "score": _score(judged, split),
            "prompts": count,
            "pictures": settings.evaluation.samples * count,
        }
    return row


def _difference(a: Sequence[Folders], b: Sequence[Folders], split: Split) -> JsonObject:
    """Compare two rows, paired over prompts; the interval is over prompts and seeds."""
    difference = compare([folders[split] for folders in a], [folders[split] for folders in b])
    return {"value": difference.value, "low": difference.low, "high": difference.high}


def _refuse_other_validation(runs: Sequence[FinishedRun]) -> None:
    """Raise UserError unless the same validation chose the runs' best checkpoints."""
    first, *rest = runs
    for run in rest:
        if run.config.get("validation") != first.config.get("validation"):
            raise UserError(
                f"select=best: {first.folder} and {run.folder} validated with different settings. Set select=last, train "
                "them with the same validation, or set allow=[validation]."
            )


def _score(judged: Sequence[Folders], split: Split) -> float:
    summaries = [read_sealed(folders[split] / "summary.json", "Judge again.") for folders in judged]
    return sum(summary["score"] for summary in summaries) / len(summaries)


def _line(name: str, row: JsonObject) -> str:
    value, low, high = (100 * row["test"][key] for key in ("value", "low", "high"))
    return f"{name}: {value:+.1f} points over the untrained policy [{low:+.1f}, {high:+.1f}]"


def _short(fact: object) -> str:
    return str(fact) if len(str(fact)) <= 120 else f"{str(fact)[:117]}…"
