"""From pictures on disk to a report: read, judge, keep the rows, add them up.

A scoring folder holds settings.json (what was asked), results.jsonl (rows, appended as they come) and summary.json
(written last). A stopped evaluation resumes there. A picture is judged again if its file has changed since, or if it
had no verdict.
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np

from thinkdraw.benchmarks.base import Benchmark, PictureSet, Report, Row, null_for_nan, row_about
from thinkdraw.benchmarks.diversity import diversity
from thinkdraw.benchmarks.picture_files import ABSENT, Inventory, memory_batches, pixels_of, read_set, stamp
from thinkdraw.benchmarks.row_log import RowLog
from thinkdraw.benchmarks.statistics import Score, mean_interval
from thinkdraw.errors import OwnCodeError, UserError
from thinkdraw.picture_reader import format_counts
from thinkdraw.runtime.files import only_writer
from thinkdraw.runtime.json_types import JsonMapping, JsonObject
from thinkdraw.runtime.registry import own_code
from thinkdraw.types import Prompt

Progress = Callable[[int, int], None]
_MAX_NAMED = 3
_JUDGE_ERRORS = (RuntimeError, ValueError, OSError, ArithmeticError, OwnCodeError)


def score_pictures(
    benchmark: Benchmark, prompts: Mapping[int, Prompt], inventory: Inventory, folder: Path | None,
    *, samples: int, prompts_at_once: int = 8, max_no_verdict_frac: float = 0.1, progress: Progress | None = None,
) -> list[Row]:  # fmt: skip
    """Judge every picture of the evaluation; one row each, in order.

    A picture that is missing or cannot be judged has a row with `problem`.
    prompts: index in the benchmark → prompt. folder: keeps the rows; None keeps none.
    prompts_at_once: prompts whose pictures are held in memory together; fewer where the pictures are large.
    Raises UserError where more than `max_no_verdict_frac` of the readable pictures got no verdict.
    """
    with only_writer(folder) if folder else nullcontext():
        log = RowLog(folder / "results.jsonl") if folder else None
        rows = _valid_rows(log.read() if log else [], inventory)
        remaining = [i for i in prompts if any(_is_open(rows.get((i, k))) for k in range(samples))]
        done = len(prompts) - len(remaining)
        sizes = ((i, _pixels(inventory, i, samples)) for i in remaining)
        for indices in memory_batches(sizes, prompts_at_once):
            new_rows = _judge_prompts(benchmark, {i: prompts[i] for i in indices}, inventory, samples)
            if log:
                log.append(new_rows)
            rows |= {(row["prompt_index"], row["sample"]): row for row in new_rows}
            _stop_if_judge_fails(benchmark, rows.values(), max_no_verdict_frac, len(prompts) * samples)
            if progress is not None:
                progress(done := done + len(indices), len(prompts))
        return [rows[i, k] for i in prompts for k in range(samples)]


def report_on(benchmark: Benchmark, rows: Sequence[Row], notes: Sequence[str] = ()) -> Report:
    """Make the benchmark's report, with notes on what else a reader must know.

    These are problems, and how the prompts differ from the official ones. Raises UserError if no picture has a
    verdict.
    """
    if all(row["verdict"] is None for row in rows):
        reasons = sorted({row.get("problem") or row.get("reason") or "no verdict" for row in rows})[:3]
        raise UserError(
            f"{benchmark.name}: none of {len(rows)} pictures has a verdict ({'; '.join(reasons)}). Mend that and run again."
        )
    report = benchmark.aggregate(rows)
    notes = [*report.notes, *notes]
    failed = [(row, why) for row in rows if (why := _failure(row))]
    for title, unreadable in (("could not be judged", False), ("cannot be read", True)):
        problems = [
            f"prompt {row['prompt_index']} picture {row['sample']}: {why}"
            for row, why in failed
            if row.get("unreadable", False) == unreadable
        ]
        if problems:
            more = " …" if len(problems) > _MAX_NAMED else ""
            notes.append(f"{len(problems)} pictures {title}: {'; '.join(problems[:_MAX_NAMED])}{more}")
    if read := read_notes(rows):
        notes.append(f"pictures as the judges saw them: {format_counts(read)}")
    return dataclasses.replace(report, notes=notes)


def read_notes(rows: Sequence[Row]) -> Counter[str]:
    """Count what was done to pictures when they were read."""
    return Counter(note for row in rows for note in row.get("read", ()))


def _failure(row: Row) -> str:
    """Say why an existing picture has no verdict; "" where that is no failure.

    A picture may have none by the benchmark's own rule.
    """
    if row["verdict"] is not None or row.get("left_out") or row.get("problem") == ABSENT:
        return ""
    return row.get("problem") or row.get("reason") or "no verdict"


def prompt_notes(
    benchmark: Benchmark, num_read: int, num_asked: int, samples: int, sha256: str, git_hash: str = ""
) -> list[str]:
    """List how this evaluation differs from the official protocol."""
    notes = []
    if benchmark.official_sha256 and not {sha256, git_hash} & set(benchmark.official_sha256):
        notes.append(f"the prompt file (sha256 {sha256[:12]}) is not the official one that this version knows")
    if num_read != benchmark.num_prompts:
        notes.append(f"the prompt file has {num_read} prompts, {benchmark.name} has {benchmark.num_prompts}")
    if num_asked != num_read:
        notes.append(f"only {num_asked} of {num_read} prompts were asked for")
    if samples != benchmark.pictures_per_prompt:
        notes.append(f"{samples} pictures per prompt, officially {benchmark.pictures_per_prompt}")
    return notes


def spread_of_pictures(rows: Sequence[Row]) -> dict[str, Score]:
    """Average per-prompt diversity: the Vendi score and the pairwise pixel distance.

    Empty with one picture per prompt.
    """
    spreads = [row["spread"] for row in rows if row.get("spread")]
    return (
        {name: mean_interval([spread[name] for spread in spreads]) for name in ("vendi", "pixels")} if spreads else {}
    )


def numbers(score: Score) -> JsonObject:
    """Convert a score to what summary.json holds."""
    return null_for_nan(dataclasses.asdict(score))


def summary_of(report: Report, settings: JsonMapping, **measures: object) -> JsonObject:
    """Build what summary.json holds.

    measures: diversity, latency, understanding.
    """
    overall = report.overall
    return null_for_nan({
        "label": report.label, "score": overall.value, "low": overall.low, "high": overall.high, "scale": report.scale,
        "unit": report.unit,
        "per_task": {name: numbers(score) for name, score in report.columns.items()},
        "pictures": overall.pictures, "prompts": overall.prompts, "no_verdict": overall.num_no_verdict,
        "extra": dict(report.extra), "notes": list(report.notes), **settings, **measures,
    })  # fmt: skip


def _judge_prompts(
    benchmark: Benchmark, prompts: Mapping[int, Prompt], inventory: Inventory, samples: int
) -> list[Row]:
    """Make the rows of all pictures of some prompts, also of missing ones."""
    rows, sets = [], []
    notes_of_picture: dict[tuple[int, int], list[str]] = {}
    for index, prompt in prompts.items():
        read = read_set(index, prompt, inventory, samples)
        absent = PictureSet(index, prompt, tuple(read.problems), ())
        for k, reason in enumerate(read.problems.values()):
            unreadable = {} if reason == ABSENT else {"unreadable": True}
            rows.append(row_about(absent, k, None, problem=reason, **unreadable))
        notes_of_picture |= {(index, sample): list(notes) for sample, notes in read.notes.items() if notes}
        if read.pictures.pictures:
            sets.append(read.pictures)
    judged = _judge_or_note_failure(benchmark, sets)
    firsts = {pictures.index: pictures.samples[0] for pictures in sets}
    spreads = {pictures.index: _spread(pictures) for pictures in sets}
    for row in judged:
        if firsts[row["prompt_index"]] == row["sample"]:
            row["spread"] = spreads[row["prompt_index"]]
        if notes := notes_of_picture.get((row["prompt_index"], row["sample"])):
            row["read"] = notes
    for row in rows + judged:
        row["stamp"] = stamp(inventory.files.get((row["prompt_index"], row["sample"])))
    return sorted(rows + judged, key=lambda row: (row["prompt_index"], row["sample"]))


def _pixels(inventory: Inventory, index: int, samples: int) -> int:
    files = [file for k in range(samples) if (file := inventory.files.get((index, k)))]
    return sum(pixels_of(file.path, inventory.reading) for file in files)


def _judge_or_note_failure(benchmark: Benchmark, sets: Sequence[PictureSet]) -> list[Row]:
    """Judge the sets; if the judge raises, judge picture by picture.

    So one bad picture does not cost the others their verdicts. Its row has a `problem`.
    """
    try:
        return _judge(benchmark, sets) if sets else []
    except _JUDGE_ERRORS as error:
        if sum(len(pictures.samples) for pictures in sets) > 1:
            singles = [single for pictures in sets for single in _single_pictures(pictures)]
            return [row for single in singles for row in _judge_or_note_failure(benchmark, [single])]
        problem = f"the judge failed: {type(error).__name__}: {' '.join(str(error).split())[:160]}"
        return [row_about(sets[0], k, None, problem=problem) for k in range(len(sets[0].samples))]


def _judge(benchmark: Benchmark, sets: Sequence[PictureSet]) -> list[Row]:
    if type(benchmark).__module__.partition(".")[0] == "thinkdraw":
        return benchmark.judge(sets)
    with own_code(f"benchmark {benchmark.name}"):
        return benchmark.judge(sets)


def _single_pictures(pictures: PictureSet) -> list[PictureSet]:
    pairs = zip(pictures.samples, pictures.pictures, strict=True)
    return [dataclasses.replace(pictures, samples=(k,), pictures=(picture,)) for k, picture in pairs]


def _spread(pictures: PictureSet) -> dict[str, float | None] | None:
    if len(pictures.pictures) < 2 or len({picture.shape for picture in pictures.pictures}) > 1:
        return None
    measures = diversity(pictures.pictures, [np.zeros(1)] * len(pictures.pictures))
    return {"vendi": measures.vendi, "pixels": measures.pixels}


def _valid_rows(rows: Sequence[Row], inventory: Inventory) -> dict[tuple[int, int], Row]:
    """Return each picture's newest row, if its file is still the one that was judged."""
    newest = {(row["prompt_index"], row["sample"]): row for row in rows}
    return {key: row for key, row in newest.items() if row.get("stamp") == stamp(inventory.files.get(key))}


def _is_open(row: Row | None) -> bool:
    """Tell whether the picture is still to be judged."""
    return row is None or (row["verdict"] is None and not row.get("left_out"))


def _stop_if_judge_fails(benchmark: Benchmark, rows: Collection[Row], max_frac: float, num_pictures: int) -> None:
    failed = [row for row in rows if _is_open(row) and row["stamp"] is not None and not row.get("unreadable")]
    if len(failed) > max(1, math.floor(max_frac * num_pictures)):  # a single failure never stops an evaluation
        reason = failed[-1].get("problem") or failed[-1].get("reason") or "no reason given"
        raise UserError(
            f"{benchmark.label} gave no verdict on {len(failed)} of {num_pictures} pictures, more than "
            f"max_no_verdict_frac={max_frac} ({reason}). Mend the judge and run again: the rows so far are kept."
        )
