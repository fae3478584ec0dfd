"""Reads an eval folder: scores per stage, paired differences, pictures to compare."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from thinkdraw.benchmarks.statistics import PromptVerdicts, Score, paired_difference, per_task, task_mean_score
from thinkdraw.report.files import data_uri, mapping, number, read_json, read_rows, text
from thinkdraw.runtime.json_types import JsonMapping

STAGES = {"base": "Base", "sft": "SFT", "rl": "RL"}
"""Stages in the order of training, with their names on the page. Other stages follow under their own names."""

_SPLITS = {"": "test", "train": "training", "ood": "out-of-domain"}

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
        """Read {"value" or "score", "low", "high", …} or a bare number."""
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
        """Whether the interval excludes zero."""
        return self.has_interval and (self.low > 0 or self.high < 0)


@dataclass(frozen=True)
class Stage:
    """One evaluated checkpoint.

    is_share: whether its score is a share of right pictures. The scores of published benchmarks may be other numbers.
    split: which prompts were drawn, as an adjective.
    other_measures: understanding, diversity, thought_precision → name → measure.
    """

    key: str
    name: str
    overall: Measure
    per_task: Mapping[str, Measure]
    no_verdict: int
    sampling: JsonMapping
    other_measures: Mapping[str, Mapping[str, Measure]]
    is_share: bool = True
    split: str = "test"
    rows: Sequence[JsonMapping] = field(repr=False, default=())


@dataclass(frozen=True)
class Difference:
    """Paired difference of a later minus an earlier stage.

    per_task is empty where pictures were not recorded.
    """

    later: str
    earlier: str
    overall: Measure
    per_task: Mapping[str, Measure]


@dataclass(frozen=True)
class StagePicture:
    """One picture with its thought and verdict. correct: None = no verdict.

    picture: data URI.
    """

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
    """Read the stages in the order of training.

    summary: the quickstart's, used where a stage has no summary of its own.
    """
    of_stages = mapping(summary.get("stages"))
    keys = [path.name for path in sorted(folder.iterdir()) if path.is_dir()] if folder.is_dir() else []
    keys = [key for key in dict.fromkeys([*STAGES, *keys, *of_stages]) if key != "pictures"]
    stages = []
    for key in keys:
        of_stage = {**mapping(of_stages.get(key)), **read_json(folder / key / "summary.json", notes)}
        rows = read_rows(folder / key / "results.jsonl", notes)
        if of_stage or rows:
            stages.append(_stage(key, of_stage, rows))
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
    names = ("understanding", "diversity", "thought_precision")
    other_measures = {name: measures for name in names if (measures := _flat(summary[name]) if name in summary else {})}
    split = text(summary.get("split"))
    return Stage(
        key, STAGES.get(key, key), overall, tasks, no_verdict, mapping(summary.get("sampling")), other_measures,
        is_share="scale" not in summary, split=_SPLITS.get(split, split), rows=rows,
    )  # fmt: skip


_OF_INTERVAL = {"value", "score", "accuracy", "mean", "low", "high"}  # keys that `Measure.read` makes one measure of
_NO_MEASURES = {"questions", "verdicts"}  # a count, and single answers


def _flat(value: object, prefix: str = "") -> dict[str, Measure]:
    """List every measure in a tree of dicts, under its joined name.

    A tree that has an interval itself begins with that measure, called "overall".
    """
    has_interval = isinstance(value, Mapping) and "low" in value
    if not isinstance(value, Mapping) or (
        has_interval and not any(isinstance(inner, Mapping) for inner in value.values())
    ):
        measure = Measure.read(value)
        return {prefix or "overall": measure} if measure.known else {}
    measures = (
        _flat({key: inner for key, inner in value.items() if not isinstance(inner, Mapping)}, prefix)
        if has_interval
        else {}
    )
    for key, inner in value.items():
        if key not in _NO_MEASURES and not (has_interval and key in _OF_INTERVAL):
            measures |= _flat(inner, f"{prefix} {key}".strip())
    return measures


def _verdicts(rows: Sequence[JsonMapping]) -> list[PromptVerdicts]:
    """Group the verdicts by prompt, in the order of prompt_index."""
    of_prompt: dict[tuple[str, str], list[float]] = {}
    for row in sorted(rows, key=lambda row: (number(row.get("prompt_index")), text(row.get("prompt_id")))):
        prompt = text(row.get("prompt_index", row.get("prompt_id", row.get("prompt"))))
        of_prompt.setdefault((text(row.get("tag")), prompt), []).append(number(row.get("correct")))
    return [PromptVerdicts(tag, verdicts, prompt) for (tag, prompt), verdicts in of_prompt.items()]


def read_differences(stages: Sequence[Stage], summary: JsonMapping) -> list[Difference]:
    """Read the difference of each stage to the one before it.

    It is the summary's where that has one, else it is computed from the pictures that both stages drew.
    """
    recorded = mapping(summary.get("difference"))
    differences = []
    for earlier, later in pairwise(stages):
        overall = Measure.read(recorded.get(f"{later.key}-{earlier.key}"))
        tasks: dict[str, Measure] = {}
        a, b = _verdicts(later.rows), _verdicts(earlier.rows)
        if a and [(row.task, row.prompt) for row in a] == [(row.task, row.prompt) for row in b]:
            for task in dict.fromkeys(row.task for row in a):
                of_task = [[row for row in side if row.task == task] for side in (a, b)]
                tasks[task] = Measure.of(paired_difference(*of_task))
            if not overall.known:
                overall = Measure.of(paired_difference(a, b))
        if overall.known or tasks:
            differences.append(Difference(later.key, earlier.key, overall, tasks))
    return differences


def read_comparisons(folder: Path, stages: Sequence[Stage]) -> list[Comparison]:
    """Read the prompts that have pictures, in the order of the results file."""
    drawings: dict[tuple[int, int], dict[str, StagePicture]] = {}
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
                drawings.setdefault(key, {})[stage.key] = _drawing(stage.name, picture, row)
    # Prompts that most stages drew come first, so that they are compared.
    order = sorted(drawings, key=lambda key: (-len(drawings[key]), key))[:MAX_COMPARISONS]
    return [
        Comparison(*prompts[key], [drawings[key][s.key] for s in stages if s.key in drawings[key]])
        for key in sorted(order)
    ]


def _drawing(stage: str, picture: str, row: JsonMapping) -> StagePicture:
    correct = row.get("correct")
    verdict = None if correct is None or number(correct) != number(correct) else bool(correct)
    return StagePicture(
        stage, picture, text(row.get("thought")), verdict, text(row.get("reason")), text(row.get("seed"))
    )


def changes(comparisons: Sequence[Comparison], earlier: str, later: str) -> Counter[str]:
    """Count the comparisons that the later stage fixed, broke, or left the same.

    It goes by their verdicts.
    """
    counts: Counter[str] = Counter()
    for comparison in comparisons:
        verdicts = {drawing.stage: drawing.correct for drawing in comparison.drawings}
        before, after = verdicts.get(earlier), verdicts.get(later)
        if before is not None and after is not None:
            counts["fixed" if after > before else "broken" if after < before else "same"] += 1
    return counts
