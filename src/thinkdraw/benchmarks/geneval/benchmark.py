"""GenEval: 553 prompts about objects, counts, colours and positions.

Ghosh et al. 2023, arXiv 2310.11513. `verdict.py` says which detections count and what a correct picture is;
`files.py` reads and writes the official files.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from thinkdraw.benchmarks.base import (
    Layout,
    PictureSet,
    Report,
    Row,
    batches_by_size,
    judge_name,
    require_judge,
    row_about,
    verdicts_by_prompt,
)
from thinkdraw.benchmarks.geneval import files as geneval_files
from thinkdraw.benchmarks.geneval.verdict import ColorJudge, judge_detections, labels_for
from thinkdraw.benchmarks.statistics import PromptVerdicts, per_task, task_mean_score
from thinkdraw.data.prompt_files import read_geneval
from thinkdraw.runtime.json_types import JsonMapping, JsonObject
from thinkdraw.types import Detection, Detector, Prompt

TAGS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")

# GenEval's own detector is OpenMMLab's. Hugging Face's of the same kind was trained separately, so labels name it.
_USUAL_DETECTOR = "hf-mask2former"
_OFFICIAL_COLORS = "clip-vit-large-patch14"
RAW_SCORE = 0.05
"""Detections below this score are not kept in rows; the rules look at those above 0.3."""


class GenEval:
    """GenEval: 553 prompts about objects, counts, colours and positions.

    It needs a `Detector` for GenEval's 80 classes.
    colors: a judge of colours, not needed where detections have a `color` themselves. batch: pictures per call of the
    detector.
    """

    name = "geneval"
    folder = "geneval"
    prompt_file = "evaluation_metadata.jsonl"
    num_prompts = 553
    official_sha256: Sequence[str] = ("5c48e0813e812e3c373fa5c8ed07a8f0a483be30272b4427b0559c8048e67c13",)
    roles: Mapping[str, str] = {"detector": "mask2former", "colors": "clip-colour"}
    pictures_per_prompt = 4

    def __init__(self, detector: Detector | None = None, colors: ColorJudge | None = None, batch: int = 32):
        self.detector, self.colors, self.batch = detector, colors, batch

    @property
    def label(self) -> str:
        name = judge_name(self.detector)
        names = [_USUAL_DETECTOR if name.startswith(f"{_USUAL_DETECTOR}:") else name]
        if self.colors is not None and not judge_name(self.colors).endswith(f":{_OFFICIAL_COLORS}"):
            names.append(judge_name(self.colors))
        return f"{self.name}[{'+'.join(names)}]"

    def prompts(self, path: Path) -> list[Prompt]:
        return read_geneval(path)

    def check_prompts(self, prompts: Sequence[Prompt]) -> None:
        """Raise UserError also for a class that the detector does not know."""
        require_judge(self.name, "detector", self.detector)
        assert self.detector is not None
        labels_for(self.detector, prompts)

    def judge(self, sets: Sequence[PictureSet]) -> list[Row]:
        assert self.detector is not None
        rows: dict[tuple[int, int], Row] = {}
        for keys, pictures in batches_by_size(sets, self.batch):
            labels = labels_for(self.detector, [sets[i].prompt for i, _ in keys])
            for (i, k), detections in zip(keys, self.detector.detect(pictures, labels), strict=True):
                rows[i, k] = self._row(sets[i], k, detections)
        return [rows[key] for key in sorted(rows)]

    def _row(self, pictures: PictureSet, k: int, detections: list[Detection] | None) -> Row:
        if detections is None:
            return row_about(pictures, k, None, reason=f"{judge_name(self.detector)} gave no verdict")
        metadata = geneval_files.metadata_of(pictures.prompt)
        judgement = judge_detections(metadata, detections, pictures.pictures[k], self.colors)
        raw: JsonObject = {
            "metadata": metadata,
            "details": {name: [[*d.box, d.score] for d in objects] for name, objects in judgement.kept.items()},
            "detections": [raw_detection(d) for d in detections if d.score >= RAW_SCORE],
        }
        if judgement.verdict is None:
            return row_about(pictures, k, None, reason=f"{judge_name(self.colors)} gave no verdict", **raw)
        return row_about(
            pictures, k, judgement.verdict.correct, reason=judgement.verdict.reason, colors=judgement.colors, **raw
        )

    def verdicts(self, rows: Sequence[Row]) -> list[PromptVerdicts]:
        return verdicts_by_prompt(rows)

    def aggregate(self, rows: Sequence[Row]) -> Report:
        return aggregate(rows, self.label)

    def official_pictures(self, folder: Path, prompts: Sequence[Prompt], samples: int) -> Layout:
        return geneval_files.find_pictures(folder, prompts)

    def export_official(self, folder: Path, prompts: Sequence[Prompt], pictures: Iterable[PictureSet]) -> None:
        for picture_set in pictures:
            geneval_files.write_prompt_folder(folder, picture_set)

    def import_official(self, file: Path, prompts: Sequence[Prompt] | None = None) -> list[Row]:
        return geneval_files.read_results(file, prompts)

    def write_results(self, folder: Path, rows: Sequence[Row]) -> None:
        geneval_files.write_results(folder / "results.jsonl", rows, self.label)


def aggregate(rows: Sequence[Row], label: str, *, seed: int = 0) -> Report:
    """Make the report: the unweighted mean of the tag scores, and a column per tag.

    A tag's score is the mean over its pictures. extra: correct_pictures_frac, and solved_prompts_frac, the prompts
    with a correct picture among those with a verdict.
    """
    verdicts = verdicts_by_prompt(rows)
    scores = per_task(verdicts, seed=seed)
    judged = [known for row in verdicts if (known := [v for v in row.verdicts if v == v])]  # v != v: NaN, no verdict
    flat = [v for known in judged for v in known]
    missing = [tag for tag in TAGS if tag not in scores]
    return Report(
        label=label,
        overall=task_mean_score(verdicts, seed=seed),
        columns={tag: scores[tag] for tag in (*TAGS, *scores) if tag in scores},
        extra={
            "correct_pictures_frac": float(np.mean(flat)) if flat else None,
            "solved_prompts_frac": float(np.mean([max(known) for known in judged])) if judged else None,
        },
        notes=[f"no pictures of {', '.join(missing)}: the overall is not GenEval's"] if missing else [],
    )


def raw_detection(detection: Detection) -> JsonObject:
    """Build a row's form of a detection, without its mask."""
    box = [float(side) for side in detection.box]
    return {"label": detection.label, "box": box, "score": float(detection.score), **detection.attributes}


def read_detection(raw: JsonMapping) -> Detection:
    """Rebuild a detection from its form in a row."""
    attributes = {key: value for key, value in raw.items() if key not in ("label", "box", "score")}
    return Detection(raw["label"], tuple(raw["box"]), raw["score"], attributes)
