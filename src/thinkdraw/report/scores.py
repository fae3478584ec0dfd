"""An eval folder → scores per stage, paired differences, and the same prompts drawn by each stage."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from thinkdraw.benchmarks.statistics import PromptVerdicts, Score, paired_difference, per_task, task_mean_score
from thinkdraw.report.files import data_uri, mapping, number, read_json, read_rows, text
from thinkdraw.runtime.json_types import JsonMapping

STAGES = {"base": "Base", "sft": "SFT", "rl": "RL"}
"""Stages in the order of training, with their names on the page; others follow under their own names."""

MAX_COMPARISONS = 24


@dataclass(frozen=True)
class Measure:
    """A score or a difference with its 95 % interval; NaN where there is none."""

    value: float
    low: float
    high: float
    pictures: int | None = None
    prompts: int | None = None

    @classmethod
    def read(cls, row: object) -> "Measure":
        """From {"value" or "score", "low", "high", …} or a bare number."""
        if not isinstance(row, Mapping):
            return cls(number(row), number(None), number(None))
        value = row.get("value", row.get("score", row.get("accuracy", row.get("mean"))))
        pictures, prompts = (int(n) if (n := number(row.get(key))) == n else None for key in ("pictures", "prompts"))
        return cls(number(value), number(row.get("low")), number(row.get("high")), pictures, prompts)

    @classmethod
    def of(cls, score: Score) -> "Measure":
        return cls(number(score.value), number(score.low), number(score.high), score.pictures, score.prompts)

    @property
    def known(self) -> bool:
        return self.value == self.value

    @property
    def has_interval(self) -> bool:
        return self.low == self.low and self.high == self.high

    @property
    def is_clear(self) -> bool:
        """The interval leaves out zero."""
        return self.has_interval and (self.low > 0 or self.high < 0)


@dataclass(frozen=True)
class Stage:
    """One evaluated checkpoint. others: group of measures → name → measure (understanding, diversity, …)."""

    key: str
    name: str
    overall: Measure
    per_task: Mapping[str, Measure]
    no_verdict: int
    sampling: JsonMapping
    others: Mapping[str, Mapping[str, Measure]]
    rows: Sequence[JsonMapping] = field(repr=False, default=())


@dataclass(frozen=True)
class Difference:
    """Paired difference of a later minus an earlier stage; per_task is empty where pictures were not recorded."""

    later: str
    earlier: str
    overall: Measure
    per_task: Mapping[str, Measure]


@dataclass(frozen=True)
class StagePicture:
    """One picture with its thought and verdict; correct None = no verdict. picture: data URI."""

    stage: str
    picture: str | None
    thought: str
    correct: bool | None
    reason: str
    seed: str


@dataclass(frozen=True)
class Comparison:
    """One prompt as drawn by each stage that has a picture of it."""

    prompt: str
    tag: str
    drawings: Sequence[StagePicture]


def read_stages(folder: Path, summary: JsonMapping, notes: list[str]) -> list[Stage]:
    """Stages in the order of training. summary: the quickstart's, which stands in where a stage's own is missing."""
    brief = mapping(summary.get("stages"))
    keys = [path.name for path in sorted(folder.iterdir()) if path.is_dir()] if folder.is_dir() else []
    keys = [key for key in dict.fromkeys([*STAGES, *keys, *brief]) if key != "pictures"]
    stages = []
    for key in keys:
        full = {**mapping(brief.get(key)), **read_json(folder / key / "summary.json", notes)}
        rows = read_rows(folder / key / "results.jsonl", notes)
        if full or rows:
            stages.append(_stage(key, full, rows))
    return stages


def _stage(key: str, summary: JsonMapping, rows: Sequence[JsonMapping]) -> Stage:
    overall = Measure.read(summary)
    tasks = {text(name): Measure.read(row) for name, row in mapping(summary.get("per_task")).items()}
    verdicts = _verdicts(rows)
    if verdicts and not overall.known:
        overall = Measure.of(task_mean_score(verdicts))
    if verdicts and not tasks:
        tasks = {name: Measure.of(score) for name, score in per_task(verdicts).items()}
    missing = number(summary.get("no_verdict"))
    no_verdict = int(missing) if missing == missing else sum(row.get("correct") is None for row in rows)
    others = {
        name: found
        for name in ("understanding", "diversity", "thought_precision")
        if (found := _flat(summary[name]) if name in summary else {})
    }
    return Stage(key, STAGES.get(key, key), overall, tasks, no_verdict, mapping(summary.get("sampling")), others, rows)


def _flat(value: object, prefix: str = "") -> dict[str, Measure]:
    """Every measure in a tree of dicts, under its joined name."""
    if not isinstance(value, Mapping) or (
        "low" in value and not any(isinstance(inner, Mapping) for inner in value.values())
    ):
        measure = Measure.read(value)
        return {prefix or "overall": measure} if measure.known else {}
    found: dict[str, Measure] = {}
    for key, inner in value.items():
        found |= _flat(inner, f"{prefix} {key}".strip())
    return found


def _verdicts(rows: Sequence[JsonMapping]) -> list[PromptVerdicts]:
    """One entry per prompt, in the order of prompt_index."""
    found: dict[tuple[str, str], list[float]] = {}
    for row in sorted(rows, key=lambda row: (number(row.get("prompt_index")), text(row.get("prompt_id")))):
        prompt = text(row.get("prompt_index", row.get("prompt_id", row.get("prompt"))))
        found.setdefault((text(row.get("tag")), prompt), []).append(number(row.get("correct")))
    return [PromptVerdicts(tag, verdicts, prompt) for (tag, prompt), verdicts in found.items()]


def read_differences(stages: Sequence[Stage], summary: JsonMapping) -> list[Difference]:
    """Each stage minus the one before it: as the summary gives it, else from the pictures that both drew."""
    given = mapping(summary.get("difference"))
    found = []
    for earlier, later in pairwise(stages):
        overall = Measure.read(given.get(f"{later.key}-{earlier.key}"))
        tasks: dict[str, Measure] = {}
        a, b = _verdicts(later.rows), _verdicts(earlier.rows)
        if a and [(row.task, row.prompt) for row in a] == [(row.task, row.prompt) for row in b]:
            for task in dict.fromkeys(row.task for row in a):
                of_task = [[row for row in side if row.task == task] for side in (a, b)]
                tasks[task] = Measure.of(paired_difference(*of_task))
            if not overall.known:
                overall = Measure.of(paired_difference(a, b))
        if overall.known or tasks:
            found.append(Difference(later.key, earlier.key, overall, tasks))
    return found


def read_comparisons(folder: Path, stages: Sequence[Stage]) -> list[Comparison]:
    """The prompts that have pictures, in the order of the results file."""
    found: dict[tuple[int, int], dict[str, StagePicture]] = {}
    prompts: dict[tuple[int, int], tuple[str, str]] = {}
    for stage in stages:
        for row in stage.rows:
            index, sample = number(row.get("prompt_index")), number(row.get("sample", 0))
            if index != index or sample != sample:
                continue
            key = (int(index), int(sample))
            path = folder / "pictures" / stage.key / f"{key[0]:05d}_{key[1]}.png"
            if path.is_file() and (picture := data_uri(path.read_bytes())):
                prompts.setdefault(key, (text(row.get("prompt")), text(row.get("tag"))))
                found.setdefault(key, {})[stage.key] = _drawing(stage.name, picture, row)
    order = sorted(found, key=lambda key: (-len(found[key]), key))[:MAX_COMPARISONS]
    return [
        Comparison(*prompts[key], [found[key][s.key] for s in stages if s.key in found[key]]) for key in sorted(order)
    ]


def _drawing(stage: str, picture: str, row: JsonMapping) -> StagePicture:
    correct = row.get("correct")
    verdict = None if correct is None or number(correct) != number(correct) else bool(correct)
    return StagePicture(
        stage, picture, text(row.get("thought")), verdict, text(row.get("reason")), text(row.get("seed"))
    )


def changes(comparisons: Sequence[Comparison], earlier: str, later: str) -> Counter[str]:
    """How many comparisons the later stage fixed, broke, or left as the earlier one drew them, by their verdicts."""
    counts: Counter[str] = Counter()
    for comparison in comparisons:
        verdicts = {drawing.stage: drawing.correct for drawing in comparison.drawings}
        before, after = verdicts.get(earlier), verdicts.get(later)
        if before is not None and after is not None:
            counts["fixed" if after > before else "broken" if after < before else "same"] += 1
    return counts
