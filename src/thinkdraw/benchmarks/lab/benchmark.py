"""The lab's benchmark: draw a fixed prompt set, judge it by the exact detector.

An evaluation folder holds settings.json (what was asked), results.jsonl (one row per picture) and summary.json
(written last). A stopped evaluation resumes there; one with other settings is refused.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, cast

import numpy as np

from thinkdraw.benchmarks.base import null_for_nan
from thinkdraw.benchmarks.diversity import diversity
from thinkdraw.benchmarks.drawing import DrawnPicture, draw_benchmark, read_rows, write_rows
from thinkdraw.benchmarks.lab.thoughts import thought_precision
from thinkdraw.benchmarks.lab.understanding import UnderstandingReport, check_per_type, evaluate_understanding
from thinkdraw.benchmarks.statistics import PromptVerdicts, Score, difference_over_seeds, per_task, task_mean_score
from thinkdraw.errors import UserError
from thinkdraw.images import to_png
from thinkdraw.lab.detector import DetectorOutput
from thinkdraw.lab.prompts import Family, prompt_set
from thinkdraw.rewards.lab_detector import LabVerdict, judge
from thinkdraw.runtime.files import atomic_write_bytes, only_writer
from thinkdraw.runtime.formats.sealed import read_sealed, write_sealed
from thinkdraw.runtime.json_types import JsonObject
from thinkdraw.types import Detection, Drawer, Policy, Sampling

Split = Literal["train", "validation", "test", "ood"]
Row = JsonObject


@dataclass(frozen=True)
class LabReport:
    """The lab benchmark's numbers for one policy.

    score: mean over tasks of the share of correct pictures. facts: the same for the share of facts that hold.
    diversity: per prompt, then averaged: `pixels`, `tokens` and `vendi`; NaN with one picture per prompt.
    thought_precision: share of the thoughts' claims that hold; empty without thoughts. rows: those of results.jsonl.
    """

    score: Score
    facts: Score
    per_task: dict[str, Score]
    diversity: dict[str, float]
    thought_precision: dict[str, Score]
    settings: JsonObject
    rows: list[Row]
    understanding: UnderstandingReport | None = None

    def summary(self) -> JsonObject:
        """Build what summary.json holds; null where a number is missing."""
        summary: JsonObject = {
            "score": self.score.value, "low": self.score.low, "high": self.score.high,
            "per_task": {task: _numbers(score) for task, score in self.per_task.items()},
            "facts": {"value": self.facts.value, "low": self.facts.low, "high": self.facts.high},
            "pictures": self.score.pictures, "prompts": self.score.prompts, "no_verdict": self.score.num_no_verdict,
            "diversity": self.diversity["vendi"], "diversity_per_measure": self.diversity,
            "thought_precision": {
                kind: {"value": s.value, "low": s.low, "high": s.high, "claims": s.pictures, "thoughts": s.prompts}
                for kind, s in self.thought_precision.items()
            },
            **self.settings,
        }  # fmt: skip
        cut = [row["thought_cut"] for row in self.rows if "thought_cut" in row]  # rows of older versions say nothing
        if cut and self.settings.get("sampling", {}).get("thought") != "off":
            summary["thoughts_cut_frac"] = sum(cut) / len(cut)
        if self.understanding is not None:
            summary["understanding"] = self.understanding.summary()
        return null_for_nan(summary)


def evaluate_lab(
    policy: Policy | Drawer, family: Family = "geneval", split: Split = "test", count: int = 384, samples: int = 4,
    sampling: Sampling | None = None, seed: int = 0, folder: Path | str | None = None, *, chunk: int = 256,
    keep_pictures: int = 24, questions_per_type: int = 0, progress: Callable[[int, int], None] | None = None,
) -> LabReport:  # fmt: skip
    """Draw `samples` pictures for each of `count` prompts, and judge them.

    Rows and summary are written into `folder`. chunk: pictures drawn at once.
    keep_pictures: for so many prompts the first picture is kept, as pictures/<folder's name>/NNNNN_0.png beside the
    folder.
    questions_per_type: also ask the policy so many questions of each type about held-out pictures. It must then be a
    `Policy`, not just a `Drawer`.
    Raises UserError if the folder holds another evaluation, or if `questions_per_type` is odd.
    """
    if questions_per_type:
        check_per_type(questions_per_type)
    sampling = sampling or Sampling.model_validate({})
    folder = None if folder is None else Path(folder)
    prompts = [example.prompt for example in prompt_set(family, split, count)]
    settings = {
        "benchmark": f"lab-{family}", "family": family, "split": split, "count": count, "samples": samples,
        "seed": seed, "revision": policy.revision, "sampling": sampling.model_dump(mode="json"),
    }  # fmt: skip
    with only_writer(folder) if folder else nullcontext():
        rows = _rows_so_far(folder, settings) if folder else []
        for drawings in draw_benchmark(
            policy, prompts, sampling, samples, folder, seed, chunk, progress, benchmark=settings["benchmark"]
        ):
            rows += _judge_drawings(drawings, folder, keep_pictures)
            if folder:
                write_rows(folder, rows)
        understanding = None
        if questions_per_type:
            understanding = evaluate_understanding(cast(Policy, policy), questions_per_type, seed)
        report = aggregate(rows, settings, understanding)
        if folder:
            write_sealed(folder / "summary.json", report.summary())
        return report


def aggregate(rows: Sequence[Row], settings: JsonObject, understanding: UnderstandingReport | None = None) -> LabReport:
    """Make the report of some rows."""
    seed = settings.get("seed", 0)
    verdicts = _by_prompt(rows, "correct")
    spreads = [row["diversity"] for row in rows if row["sample"] == 0]
    measures = {name: [s[name] for s in spreads if s[name] is not None] for name in ("vendi", "pixels", "tokens")}
    contents = [_contents(row) for row in rows]
    return LabReport(
        score=task_mean_score(verdicts, seed=seed),
        facts=task_mean_score(_by_prompt(rows, "fact_share"), seed=seed),
        per_task=per_task(verdicts, seed=seed),
        diversity={name: float(np.mean(values)) if values else math.nan for name, values in measures.items()},
        thought_precision=thought_precision([row["thought"] for row in rows], contents, seed=seed),
        settings=settings,
        rows=list(rows),
        understanding=understanding,
    )


def compare(
    folder_a: Path | str | Sequence[Path], folder_b: Path | str | Sequence[Path], *, paired_seeds: bool = False,
    seed: int = 0,
) -> Score:  # fmt: skip
    """Compute the score of a minus that of b on the same prompts, paired.

    Several folders on a side are training seeds: the interval is then over prompts and seeds, see
    `difference_over_seeds`.
    Raises UserError if the prompts differ.
    """
    seeds_a, seeds_b = (
        [_by_prompt(read_rows(folder), "correct") for folder in ([side] if isinstance(side, str | Path) else side)]
        for side in (folder_a, folder_b)
    )
    try:
        return difference_over_seeds(seeds_a, seeds_b, paired_seeds=paired_seeds, seed=seed)
    except ValueError as error:
        raise UserError(f"{folder_a} and {folder_b} cannot be compared: {error}") from error


def _rows_so_far(folder: Path, settings: JsonObject) -> list[Row]:
    """Return the rows of an earlier call. Raises UserError if its settings differ."""
    path, rows = folder / "settings.json", read_rows(folder)
    if rows and path.exists():
        before = read_sealed(path, "Choose an empty folder, or remove this one.")
        if changed := [key for key in settings if before.get(key) != settings[key]]:
            key = changed[0]
            raise UserError(
                f"{folder} holds an evaluation with {key}={before.get(key)!r}, not {settings[key]!r}. "
                "Choose an empty folder, or remove this one."
            )
        return rows
    if rows:
        raise UserError(f"{folder} holds results without settings.json. Choose an empty folder.")
    write_sealed(path, settings)
    return rows


def _judge_drawings(drawings: Sequence[DrawnPicture], folder: Path | None, keep_pictures: int) -> list[Row]:
    """Judge some pictures, all those of a prompt among them, and return their rows."""
    groups: dict[int, list[DrawnPicture]] = {}
    for drawing in drawings:
        groups.setdefault(drawing.prompt_index, []).append(drawing)
    rows = []
    for index, group in groups.items():
        spread = null_for_nan(asdict(diversity([d.picture for d in group], [d.image_tokens for d in group])))
        for drawing in group:
            verdict = judge(drawing.picture, drawing.prompt)
            png_path = None
            if folder and index < keep_pictures and drawing.sample == 0:
                png_path = f"pictures/{folder.name}/{index:05d}_{drawing.sample}.png"
                atomic_write_bytes(folder.parent / png_path, to_png(drawing.picture))
            rows.append(_row(drawing, verdict) | {"diversity": spread, "png_path": png_path})
    return rows


def _row(drawing: DrawnPicture, verdict: LabVerdict) -> Row:
    prompt = drawing.prompt
    return {
        "prompt_index": drawing.prompt_index, "prompt_id": prompt.id or prompt.text, "prompt": prompt.text,
        "tag": prompt.tag, "sample": drawing.sample, "seed": drawing.seed, "correct": verdict.correct,
        "fact_share": verdict.share, "reason": verdict.reason, "thought": drawing.thought, "thought_cut": drawing.was_cut,
        "background": verdict.contents.background,
        "detections": [
            {"label": d.label, "box": d.box, "score": round(d.score, 6), **d.attributes} for d in verdict.detections
        ],
    }  # fmt: skip


def _contents(row: Row) -> DetectorOutput:
    """Rebuild what the detector saw from a row."""
    names = ("label", "box", "score")
    return DetectorOutput(
        row["background"],
        [
            Detection(d["label"], tuple(d["box"]), d["score"], {k: v for k, v in d.items() if k not in names})
            for d in row["detections"]
        ],
    )


def _by_prompt(rows: Sequence[Row], key: str) -> list[PromptVerdicts]:
    prompts: dict[int, list[Row]] = {}
    for row in sorted(rows, key=lambda row: (row["prompt_index"], row["sample"])):
        prompts.setdefault(row["prompt_index"], []).append(row)
    return [
        PromptVerdicts(
            rows_of_prompt[0]["tag"],
            [math.nan if row[key] is None else float(row[key]) for row in rows_of_prompt],
            rows_of_prompt[0]["prompt_id"],
        )
        for rows_of_prompt in prompts.values()
    ]


def _numbers(score: Score) -> JsonObject:
    return {
        "value": score.value,
        "low": score.low,
        "high": score.high,
        "pictures": score.pictures,
        "prompts": score.prompts,
    }
