"""GenEval: 553 prompts about objects, counts, colours and positions (Ghosh et al. 2023, arXiv 2310.11513).

Reads the official prompts, writes pictures and results so that the official tools can read them, and aggregates
results the official way. The verdict on one picture is in `thinkdraw.rewards.rules`.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from thinkdraw.benchmarks.statistics import NUM_RESAMPLES, PromptVerdicts, Score, per_task, task_mean_score
from thinkdraw.errors import UserError

LABEL = "geneval"
"""Name of a score from the official judge; `label_with` names the score of any other judge."""

TAGS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
PICTURES_PER_PROMPT = 4


@dataclass(frozen=True)
class PictureResult:
    """The judge's result on one picture; fields as in the official results file.

    correct: None = no verdict.  metadata: the prompt's metadata.  details: class → rows (x1, y1, x2, y2, score).
    """

    filename: str
    tag: str
    prompt: str
    correct: bool | None
    reason: str
    metadata: Mapping[str, Any]
    details: Mapping[str, Sequence[Sequence[float]]]


@dataclass(frozen=True)
class GenEvalReport:
    """GenEval's numbers for one set of pictures; shares are over what has a verdict, NaN if nothing has one.

    overall: unweighted mean of the tag scores.  per_tag: in the official order, then unofficial tags.
    missing_tags: official tags without any picture; unless empty, `overall` is not GenEval's overall score.
    """

    overall: Score
    per_tag: dict[str, Score]
    correct_pictures_frac: float
    solved_prompts_frac: float
    missing_tags: tuple[str, ...]


def label_with(judge: str) -> str:
    """Name of a score from a judge that is not the official one, for instance "geneval[hf-mask2former]"."""
    return f"{LABEL}[{judge}]"


def aggregate(results: Iterable[PictureResult], *, seed: int = 0, num_resamples: int = NUM_RESAMPLES) -> GenEvalReport:
    """Official aggregation with 95 % intervals; results in any order, grouped into prompts by their metadata.

    A prompt is solved if at least one of its pictures is correct. Raises ValueError without results.
    """
    verdicts: dict[tuple[str, str], list[float]] = {}
    for result in results:
        prompt = (result.tag, json.dumps(result.metadata, sort_keys=True))
        verdicts.setdefault(prompt, []).append(math.nan if result.correct is None else float(result.correct))
    # Sorted so that the order of a results file does not move the interval.
    rows = [PromptVerdicts(tag, found, key) for (tag, key), found in sorted(verdicts.items())]
    overall = task_mean_score(rows, seed=seed, num_resamples=num_resamples)
    scores = per_task(rows, seed=seed, num_resamples=num_resamples)
    judged = [[v for v in row.verdicts if not math.isnan(v)] for row in rows]
    return GenEvalReport(
        overall=overall,
        per_tag={tag: scores[tag] for tag in (*TAGS, *scores) if tag in scores},
        correct_pictures_frac=_mean([v for found in judged for v in found]),
        solved_prompts_frac=_mean([max(found) for found in judged if found]),
        missing_tags=tuple(tag for tag in TAGS if tag not in scores),
    )


def read_metadata(path: Path | str) -> list[dict[str, Any]]:
    """Prompts of an official metadata file, one dict per line with `tag`, `prompt`, `include` and perhaps `exclude`.

    Raises UserError naming the line if the file is missing, empty or broken.
    """
    rows = []
    for where, row in _json_lines(Path(path)):
        _check_keys(where, row, {"tag": str, "prompt": str, "include": list})
        for clause in [*row["include"], *row.get("exclude", [])]:
            if not isinstance(clause, dict):
                raise UserError(f"{where}: a clause must be an object, not {clause!r}.")
            _check_keys(where, clause, {"class": str, "count": int})
        rows.append(row)
    return rows


def write_official_layout(
    folder: Path | str, index: int, metadata: Mapping[str, Any], pictures: Sequence[np.ndarray] | np.ndarray
) -> Path:
    """Write one prompt's folder for the official tool: `00000/metadata.jsonl` and `00000/samples/0000.png` onwards.

    index: the prompt's line in the metadata file, from 0.  pictures: K pictures, each (H, W, 3) uint8 RGB.
    Returns the prompt's folder. Raises UserError if it holds further samples, which the official tool would count.
    """
    arrays = [np.asarray(picture) for picture in pictures]
    for picture in arrays:
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            raise ValueError(f"picture of {picture.dtype} {picture.shape}: GenEval's layout takes uint8 (H, W, 3).")
    prompt_folder = Path(folder) / f"{index:05d}"
    samples = prompt_folder / "samples"
    samples.mkdir(parents=True, exist_ok=True)
    names = [f"{number:04d}.png" for number in range(len(arrays))]
    extra = sorted({path.name for path in samples.glob("*.png")} - set(names))
    if extra:
        raise UserError(f"{samples} already holds {', '.join(extra)} from another run. Choose an empty folder.")
    (prompt_folder / "metadata.jsonl").write_text(json.dumps(metadata), encoding="utf-8")
    for name, picture in zip(names, arrays, strict=True):
        Image.fromarray(np.ascontiguousarray(picture)).save(samples / name)
    return prompt_folder


def write_results_jsonl(path: Path | str, results: Iterable[PictureResult]) -> None:
    """Write the official results file; a picture without a verdict has `"correct": null`."""
    with Path(path).open("w", encoding="utf-8", newline="\n") as file:
        for result in results:
            row = {
                "filename": result.filename,
                "tag": result.tag,
                "prompt": result.prompt,
                "correct": result.correct,
                "reason": result.reason,
                "metadata": json.dumps(result.metadata),
                "details": json.dumps(result.details),
            }
            # pandas, which writes the official file, escapes slashes.
            file.write(json.dumps(row, separators=(",", ":")).replace("/", "\\/") + "\n")


def read_results_jsonl(path: Path | str) -> list[PictureResult]:
    """Results from an official or our own results file. Raises UserError naming the line if it is broken."""
    results = []
    texts = dict.fromkeys(("filename", "tag", "prompt", "reason", "metadata", "details"), str)
    for where, row in _json_lines(Path(path)):
        _check_keys(where, row, {**texts, "correct": bool | None})
        metadata, details = (_parse(f"{where}, {key}", row[key]) for key in ("metadata", "details"))
        results.append(
            PictureResult(row["filename"], row["tag"], row["prompt"], row["correct"], row["reason"], metadata, details)
        )
    return results


def _json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """("file, line N", object) per line."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}).") from error
    if not text.strip():
        raise UserError(f"{path}, line 1: the file is empty; it needs one JSON object per line.")
    for number, line in enumerate(text.rstrip().split("\n"), start=1):
        where = f"{path}, line {number}"
        yield where, _parse(where, line)


def _parse(where: str, text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: not valid JSON ({error.msg} at column {error.colno}).") from error
    if not isinstance(value, dict):
        raise UserError(f"{where}: expected a JSON object, found {text.strip()[:60]!r}.")
    return value


def _check_keys(where: str, row: Mapping[str, Any], kinds: Mapping[str, Any]) -> None:
    for key, kind in kinds.items():
        if key not in row:
            raise UserError(f"{where}: the key {key!r} is missing.")
        if not isinstance(row[key], kind):
            raise UserError(f"{where}: {key!r} has the wrong type: {row[key]!r}.")


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else math.nan
