"""Import original scorers' result files, and compare two evaluations."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field, model_validator

from thinkdraw.benchmarks import load_benchmark
from thinkdraw.benchmarks.base import Benchmark, HasColumns, Row, null_for_nan, verdicts_by_prompt
from thinkdraw.benchmarks.crossed import differences
from thinkdraw.benchmarks.flow import numbers, report_on, summary_of
from thinkdraw.benchmarks.lab.understanding import understanding_difference
from thinkdraw.benchmarks.row_log import RowLog
from thinkdraw.benchmarks.settings import sha256_of, sha256_of_prompts
from thinkdraw.benchmarks.statistics import PromptVerdicts
from thinkdraw.benchmarks.vqa import vqa_difference
from thinkdraw.errors import UserError
from thinkdraw.runtime.files import atomic_write_text
from thinkdraw.runtime.formats.sealed import read_sealed, seal_line, write_sealed
from thinkdraw.runtime.json_types import JsonMapping, JsonObject
from thinkdraw.studies.evaluate import Evaluation
from thinkdraw.studies.evaluate_open import LAB_SUITES, EvaluateConfig, LabSuite, prompt_path


class EvalConfig(EvaluateConfig):
    """Settings of `thinkdraw eval`.

    They describe an evaluation, an original scorer's file to import, or two evaluations to compare.
    """

    benchmarks: list[str] = Field(
        default=["lab-geneval"],
        min_length=1,
        description="Benchmarks to run: names of `thinkdraw list benchmarks`, or pkg.mod:Class of your own.",
    )

    @model_validator(mode="before")
    @classmethod
    def _own_if_there_is_a_reward(cls, value: object) -> object:
        """Take `own` for the benchmark where a reward is named and no benchmark is."""
        if isinstance(value, dict) and value.get("reward") is not None:
            return {"benchmarks": ["own"], **value}
        return value

    import_official: Path | None = Field(
        default=None,
        description="Result file of the benchmark's original scorer, read in place of drawing and judging; null "
        "reads none.",
    )
    compare: tuple[Path, Path] | None = Field(
        default=None,
        description="Folders A and B of two evaluations: prints the paired difference A − B, and draws nothing; "
        "null compares none.",
    )


def import_official(
    name: str, file: Path, prompts: Path | None = None, out: Path | None = None,
    settings: JsonMapping | None = None,
) -> Evaluation:  # fmt: skip
    """Import an original scorer's result file as an evaluation of our own form.

    prompts: the prompt file, needed if the result file does not name its prompts. settings: the benchmark's own.
    The label has no judge in brackets unless the file names one.
    Raises UserError for a file of another form.
    """
    if not file.exists():
        raise UserError(f"import_official={file} does not exist. Give the original scorer's result file.")
    benchmark = load_benchmark(name, **(settings or {}))
    path = prompt_path(benchmark, prompts) if prompts else None
    read = benchmark.prompts(path) if path else None
    rows = benchmark.import_official(file, read)
    labels = sorted({row["label"] for row in rows if "label" in row})
    report = report_on(benchmark, rows, [] if labels else [f"{file.name} does not say whose judge wrote it"])
    report = dataclasses.replace(report, label="+".join(labels) or benchmark.name)
    facts = {
        "benchmark": benchmark.name, "label": report.label, "judges": {}, "settings": settings or {}, "source": "import",
        "prompts_sha256": sha256_of_prompts(read, path) if read else None,
        "prompts_file": path.name if path else None, "file": file.name, "file_sha256": sha256_of(file),
    }  # fmt: skip
    folder = out or Path("runs/eval") / file.stem / benchmark.name / "imported"
    summary = summary_of(report, facts)
    write_sealed(folder / "settings.json", facts)
    atomic_write_text(folder / "results.jsonl", "".join(seal_line(null_for_nan(row)) for row in rows))
    write_sealed(folder / "summary.json", summary)
    return Evaluation(report, summary, folder)


def compare_folders(a: Path, b: Path, *, seed: int = 0) -> list[JsonObject]:
    """Compute the paired difference, a minus b, of every benchmark that both hold.

    Overall, per column, and of understanding.
    a, b: folders of evaluations, or folders above such. Raises UserError if nothing matches, or prompts or judges differ.
    """
    pairs = _pairs(a, b)
    if not pairs:
        raise UserError(
            f"{a} and {b} hold no evaluation of the same name. Give two folders with a summary.json in them."
        )
    return [null_for_nan(_compare(left, right, seed)) for left, right in pairs]


def _compare(a: Path, b: Path, seed: int) -> JsonObject:
    (settings_a, rows_a), (settings_b, rows_b) = (_read(folder) for folder in (a, b))
    for key in ("label", "benchmark", "prompts_sha256"):
        if settings_a.get(key) != settings_b.get(key):
            raise UserError(
                f"{a} and {b} cannot be compared: {key} is {settings_a.get(key)!r} and {settings_b.get(key)!r}."
            )
    for role, judge in settings_a.get("judges", {}).items():
        revisions = [judge.get("revision"), settings_b.get("judges", {}).get(role, {}).get("revision")]
        if None not in revisions and revisions[0] != revisions[1]:
            raise UserError(f"{a} and {b} cannot be compared: the judge of {role} is {' and '.join(revisions)}.")
    benchmark = _benchmark(settings_a)
    sides = [_verdicts(benchmark, rows) for rows in (rows_a, rows_b)]
    try:
        by_task = differences(*(_also_in(side, against) for side, against in (sides, sides[::-1])), seed=seed)
    except ValueError as error:
        raise UserError(f"{a} and {b} cannot be compared: {error}") from error
    if isinstance(benchmark, HasColumns):
        columns = [benchmark.column_verdicts(rows) for rows in (rows_a, rows_b)]
        keys = [{(row.task, row.prompt) for row in side} for side in columns]
        both = [[row for row in side if (row.task, row.prompt) in keys[0] & keys[1]] for side in columns]
        by_task = (differences(*both, seed=seed) if both[0] else {}) | {"overall": by_task["overall"]}
    label = settings_a.get("label") or f"{settings_a['benchmark']}[lab-detector]"  # the lab's own rows have no label
    drawn = [{key: side.get(key) for key in ("revision", "sampling", "seed")} for side in (settings_a, settings_b)]
    return {
        "benchmark": settings_a["benchmark"], "label": label, "judges": settings_a.get("judges", {}),
        "prompts_sha256": settings_a.get("prompts_sha256"), "a": str(a), "b": str(b), "drawn": dict(zip("ab", drawn)),
        "difference": numbers(by_task.pop("overall")),
        "per_task": {task: numbers(score) for task, score in by_task.items()},
        **_understanding(a, b, seed),
    }  # fmt: skip


def _pairs(a: Path, b: Path) -> list[tuple[Path, Path]]:
    """Pair evaluations at the same path below both folders, or the folders themselves."""
    pairs = [(path.parent, b / path.parent.relative_to(a)) for path in sorted(a.rglob("settings.json"))]
    return [(left, right) for left, right in pairs if (right / "settings.json").is_file()]


def _read(folder: Path) -> tuple[JsonObject, list[Row]]:
    rows = {(row["prompt_index"], row["sample"]): row for row in RowLog(folder / "results.jsonl").read()}
    if not rows:
        raise UserError(f"{folder} holds no rows: the evaluation has not begun. Run it, then compare.")
    return _read_json(folder / "settings.json"), list(rows.values())


def _benchmark(settings: JsonMapping) -> Benchmark | None:
    """Open an evaluation's benchmark, without judges.

    None for the lab's own evaluation, whose rows have `correct`.
    """
    if "family" in settings:
        return None
    suite = LAB_SUITES.get(settings["benchmark"], LabSuite(settings["benchmark"], {}))
    return load_benchmark(suite.benchmark, **{**suite.settings, **settings.get("settings", {})})


def _verdicts(benchmark: Benchmark | None, rows: Sequence[Row]) -> list[PromptVerdicts]:
    return verdicts_by_prompt(rows, "correct") if benchmark is None else benchmark.verdicts(rows)


def _also_in(side: Sequence[PromptVerdicts], against: Sequence[PromptVerdicts]) -> list[PromptVerdicts]:
    """Drop prompts without any verdict here that the other side does not have.

    An original result file leaves such prompts out.
    """
    known = {row.prompt for row in against}
    return [row for row in side if row.prompt in known or not all(map(math.isnan, row.verdicts))]


def _understanding(a: Path, b: Path, seed: int) -> JsonObject:
    """Compare the models' understanding of pictures; null for a model not asked."""
    sides = [_read_json(folder / "summary.json").get("understanding") or {} for folder in (a, b)]
    keys = ("accuracy", "low", "high", "questions")
    known = [{key: side[key] for key in keys} if "accuracy" in side else None for side in sides]
    comparison: JsonObject = {"understanding": dict(zip("ab", known))}
    if (difference := understanding_difference(*sides, seed=seed)) is not None:
        comparison["understanding"]["difference"] = numbers(difference)
    file_a, file_b = (side.get("vqa") for side in sides)
    if file_a and file_b:
        difference = vqa_difference(file_a["rows"], file_b["rows"], seed=seed)
        comparison["vqa"] = {"a": file_a["value"], "b": file_b["value"], "difference": numbers(difference)}
    return comparison


def _read_json(path: Path) -> JsonObject:
    return read_sealed(path, "Evaluate again.") if path.exists() else {}
