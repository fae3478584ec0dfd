"""Runs side by side at stated cost, each judged on the same test prompts and compared with the policy that all began with.

    thinkdraw compare runs/objectives/cells/dpo/seed_0 runs/objectives/cells/dpo/seed_1 runs/lab_grpo

Runs that differ in nothing but the seed are one row, with its pictures pooled. Best-of-N of the untrained policy, with the
same reward, is a row of its own: training has to beat it. One rule chooses the checkpoint of every run (`select`), and a run's
costs are those at that checkpoint.
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
from thinkdraw.types import Drawer

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
    """How every run of a comparison is judged."""

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
    """A run folder: its configuration, what it began with (see `RunFolder.started`), the checkpoint that is judged, and
    the ledger at that checkpoint."""

    folder: Path
    config: JsonObject
    started: JsonObject
    checkpoint: Path
    spent: dict[str, float]

    @classmethod
    def read(cls, folder: Path, select: Select = "last") -> "FinishedRun":
        """Raises UserError if the folder is not a run's, of one that has not made a step, or has no such checkpoint."""
        way_out = (
            f"{folder} is not a run that can be compared. Give folders that `thinkdraw train` wrote with SFT, GRPO, "
            "preference or rejection."
        )
        config = read_yaml_object(folder / "config.yaml", way_out)
        started = read_json_object(folder / STARTED, way_out)
        rows = MetricsLog.read(folder / "metrics.jsonl")
        if not rows:
            raise UserError(f"{folder} has no step in metrics.jsonl yet. Let the run go on: thinkdraw train.")
        checkpoint = run_checkpoint(folder, select)
        if checkpoint is None:
            raise UserError(
                f"select=best: {folder} never validated, so its last checkpoint would stand against others' best. "
                "Judge all by select=last."
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
        folder = self.folder.resolve()
        return folder.parent.name if folder.name.startswith("seed_") else folder.name


@only_writer_of_out
def run(config: CompareConfig, say: Callable[[str], None] = print) -> Path:
    """Judge what is not judged yet; write summary.json, table.md and comparison.svg. Raises UserError for unlike runs."""
    save_config(config, config.out / "config.yaml")
    groups: dict[str, list[FinishedRun]] = {}
    for found in (FinishedRun.read(folder, config.select) for folder in config.runs):
        groups.setdefault(found.group, []).append(found)
    named: dict[str, list[FinishedRun]] = {}
    for runs in groups.values():
        named[runs[0].name if runs[0].name not in named else str(runs[0].folder)] = runs
    return compare_groups(named, config, config.out, config.allow, {}, say)


def compare_groups(
    groups: Mapping[str, Sequence[FinishedRun]], asked: JudgingSettings, out: Path, allow: Sequence[Fact],
    about: JsonObject, say: Callable[[str], None],
) -> Path:  # fmt: skip
    """groups: name → runs of several seeds. about: goes into summary.json before the rows."""
    runs = [run for group in groups.values() for run in group]
    refuse_unlike(runs, allow)
    if asked.select == "best" and "validation" not in allow:
        _refuse_other_validation(runs)
    base = policy_path(runs[0].config["policy"])
    places: Folders = {split: out / "eval" / split / "untrained" for split in _splits(asked)}
    beginning = CachedDrawer(load_trained(base))
    untrained = _judged(beginning, asked, places)
    rows = {"untrained": _row(asked, [untrained], untrained, [])}
    judged: dict[str, list[Folders]] = {}  # by row; a folder for each training seed
    for by, settings in (asked.best_of_by or {"": asked.reward}).items() if asked.best_of else ():
        assert asked.best_of
        name = f"best of {asked.best_of}" + (f" by {by}" if by else "")
        chooser = BestOfN(beginning, open_reward(settings.name, **settings.settings), asked.best_of)
        places = {split: out / "eval" / split / name.replace(" ", "-") for split in _splits(asked)}
        judged[name] = [_judged(chooser, asked, places)]
        rows[name] = _row(asked, judged[name], untrained, [], drawn=asked.best_of)
        say(_line(name, rows[name]))
    for name, group in groups.items():
        judged[name] = [_judged(load_trained(run.checkpoint), asked, _places(run, asked)) for run in group]
        rows[name] = _row(asked, judged[name], untrained, group)
        say(_line(name, rows[name]))
    differences = [
        {"row": a, "minus": b} | {split: _difference(judged[a], judged[b], split) for split in _splits(asked)}
        for a, b in combinations(judged, 2)
    ]
    started = {key: runs[0].started[key] for key in ("base", "prompts")}
    summary = {**about, **started, "select": asked.select, "rows": rows, "differences": differences}
    atomic_write_json(out / "summary.json", summary)
    atomic_write_text(out / "table.md", table(rows, asked.select) + differences_table(differences))
    draw(rows, out / "comparison.svg", asked.axes)
    return out


def refuse_unlike(runs: Sequence[FinishedRun], allow: Sequence[Fact] = ()) -> None:
    """Raise UserError, which names the runs and the fact, unless all began with the same policy, prompts and sampling."""
    facts: tuple[Fact, ...] = ("base", "prompts", "sampling")  # of started.json
    for fact in (f for f in facts if f not in allow):
        first = runs[0]
        for other in runs[1:]:
            if other.started[fact] != first.started[fact]:
                raise UserError(
                    f"{first.folder} and {other.folder} began with another {fact}: {_short(first.started[fact])} and "
                    f"{_short(other.started[fact])}. Compare runs that share it, or say allow=[{fact}]."
                )


def _judged(policy: Drawer, asked: JudgingSettings, folders: Folders) -> Folders:
    """Draw and judge in domain and out of domain what is not judged yet."""
    e = asked.evaluation
    for split, folder in folders.items():
        evaluate_lab(policy, e.family, split, _splits(asked)[split], e.samples, e.sampling, e.seed, folder)
    return folders


def _splits(asked: JudgingSettings) -> dict[Split, int]:
    """Split → number of prompts."""
    counts: dict[Split, int] = {"test": asked.evaluation.prompts, "ood": asked.out_of_domain_prompts}
    return {split: count for split, count in counts.items() if count}


def _places(run: FinishedRun, asked: JudgingSettings) -> Folders:
    e = asked.evaluation
    return {
        split: run.folder / "eval" / f"lab-{e.family}-{split}-{count}x{e.samples}-{run.checkpoint.name}"
        for split, count in _splits(asked).items()
    }


def _row(
    asked: JudgingSettings, judged: Sequence[Folders], untrained: Folders, runs: Sequence[FinishedRun], drawn: int = 1
) -> JsonObject:
    """Differences to the untrained policy, of all seeds and of each alone, and what one seed cost on average.

    drawn: pictures per picture that is handed over.
    """
    row: JsonObject = {
        name: sum(run.spent[name] for run in runs) / len(runs) if runs else 0 for name in (*COSTS, "seconds")
    }
    row |= {"pictures_drawn_per_test_picture": drawn, "seeds": [run.config["seed"] for run in runs]}
    for split, count in _splits(asked).items():
        each = [compare(folders[split], untrained[split]).value for folders in judged]
        row[split] = _difference(judged, [untrained], split) | {"per_seed": each}
        row[split] |= {"score": _score(judged, split), "prompts": count, "pictures": asked.evaluation.samples * count}
    return row


def _difference(a: Sequence[Folders], b: Sequence[Folders], split: Split) -> JsonObject:
    """Of two rows, paired over prompts, with an interval over prompts and training seeds."""
    found = compare([folders[split] for folders in a], [folders[split] for folders in b])
    return {"value": found.value, "low": found.low, "high": found.high}


def _refuse_other_validation(runs: Sequence[FinishedRun]) -> None:
    """Raise UserError unless the runs' best checkpoints were chosen by the same validation."""
    first, *others = runs
    for other in others:
        if other.config.get("validation") != first.config.get("validation"):
            raise UserError(
                f"select=best: {first.folder} and {other.folder} validated with other settings. Judge all by select=last, "
                "train them with the same validation, or say allow=[validation]."
            )


def _score(judged: Sequence[Folders], split: Split) -> float:
    summaries = [read_sealed(folders[split] / "summary.json", "Judge again.") for folders in judged]
    return sum(summary["score"] for summary in summaries) / len(summaries)


def _line(name: str, row: JsonObject) -> str:
    value, low, high = (100 * row["test"][key] for key in ("value", "low", "high"))
    return f"{name}: {value:+.1f} points over the untrained policy [{low:+.1f}, {high:+.1f}]"


def _short(fact: object) -> str:
    return str(fact) if len(str(fact)) <= 120 else f"{str(fact)[:117]}…"
