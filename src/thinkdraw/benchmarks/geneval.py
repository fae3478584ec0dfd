"""GenEval: 553 prompts about objects, counts, colours and positions (Ghosh et al. 2023, arXiv 2310.11513).

Which detections count and what a correct picture is says `thinkdraw.rewards.rules`, by way of `geneval_verdict`; the
official files are read and written by `geneval_files`.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from thinkdraw.benchmarks import geneval_files
from thinkdraw.benchmarks.base import (
    PictureSet,
    Place,
    Report,
    Row,
    batches_by_size,
    judge_name,
    row_about,
    verdicts_by_prompt,
)
from thinkdraw.benchmarks.geneval_verdict import kept_by_class, objects_to_color, raw_detection, verdict_on
from thinkdraw.benchmarks.statistics import PromptVerdicts, per_task, task_mean_score
from thinkdraw.data.prompt_files import read_geneval
from thinkdraw.errors import UserError
from thinkdraw.rewards.rules import ColorOf
from thinkdraw.types import Detection, Detector, Prompt

TAGS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")

# GenEval's own detector is OpenMMLab's; Hugging Face's of the same kind was trained apart, so its scores say its name.
_USUAL_DETECTOR = "hf-mask2former"
_OFFICIAL_COLORS = "clip-vit-large-patch14"
RAW_SCORE = 0.05
"""Detections below this score are not kept in rows; the rules look at those above 0.3."""


class ColorJudge(Protocol):
    """Names colours in one picture, (H, W, 3) uint8: (class name, its detections) → one colour each."""

    def color_of(self, picture: np.ndarray) -> ColorOf: ...


class GenEval:
    """GenEval's rules over any `Detector`. colors: not needed where detections say their `color` themselves.

    batch: pictures per call of the detector.
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
        self._finds_all = detector is None or not _needs_labels(detector)

    @property
    def label(self) -> str:
        name = judge_name(self.detector)
        names = [_USUAL_DETECTOR if name.startswith(f"{_USUAL_DETECTOR}:") else name]
        if self.colors is not None and not judge_name(self.colors).endswith(f":{_OFFICIAL_COLORS}"):
            names.append(judge_name(self.colors))
        return f"{self.name}[{'+'.join(names)}]"

    def prompts(self, path: Path) -> list[Prompt]:
        return read_geneval(path)

    def judge(self, sets: Sequence[PictureSet]) -> list[Row]:
        self._check_names(sets)
        rows: dict[tuple[int, int], Row] = {}
        for places, pictures in batches_by_size(sets, self.batch):
            labels = None if self._finds_all else [_classes(sets[i].prompt) for i, _ in places]
            assert self.detector is not None
            for (i, k), found in zip(places, self.detector.detect(pictures, labels), strict=True):
                rows[i, k] = self._row(sets[i], k, found)
        return [rows[place] for place in sorted(rows)]

    def _row(self, pictures: PictureSet, k: int, found: list[Detection] | None) -> Row:
        if found is None:
            return row_about(pictures, k, None, reason=f"{judge_name(self.detector)} gave no verdict")
        metadata = geneval_files.metadata_of(pictures.prompt)
        kept = kept_by_class(metadata, found)
        raw: dict[str, Any] = {
            "metadata": metadata,
            "details": {name: [[*d.box, d.score] for d in objects] for name, objects in kept.items()},
            "detections": [raw_detection(d) for d in found if d.score >= RAW_SCORE],
        }
        colors = self._colors(pictures.pictures[k], objects_to_color(metadata, kept))
        if colors is None:
            return row_about(pictures, k, None, reason=f"{judge_name(self.colors)} gave no verdict", **raw)
        verdict = verdict_on(metadata, found, colors)
        return row_about(pictures, k, verdict.correct, reason=verdict.reason, colors=colors, **raw)

    def _colors(self, picture: np.ndarray, asked: Mapping[str, Sequence[Detection]]) -> dict[str, list[str]] | None:
        """Class → colours of its objects; None = no verdict."""
        if all("color" in d.attributes for objects in asked.values() for d in objects):
            return {name: [d.attributes["color"] for d in objects] for name, objects in asked.items()}
        if self.colors is None:
            raise UserError(
                "geneval: this detector does not name colours. Give a judge that does: --judge colors=NAME."
            )
        from thinkdraw.judges.colour import NoVerdict

        color_of = self.colors.color_of(picture)
        try:
            return {name: color_of(name, objects) for name, objects in asked.items()}
        except NoVerdict:
            return None

    def _check_names(self, sets: Sequence[PictureSet]) -> None:
        """A class that the detector calls otherwise would never be found, which looks like a bad picture."""
        known: Sequence[str] = getattr(self.detector, "names", ())
        for name in {name for pictures in sets for name in _classes(pictures.prompt)}:
            if known and name not in known:
                raise UserError(
                    f"geneval: the detector has no class {name!r}. Give it GenEval's object_names.txt: "
                    "--judge detector.names_file=PATH."
                )

    def verdicts(self, rows: Sequence[Row]) -> list[PromptVerdicts]:
        return verdicts_by_prompt(rows)

    def aggregate(self, rows: Sequence[Row]) -> Report:
        return aggregate(rows, self.label)

    def official_pictures(self, folder: Path, prompts: Sequence[Prompt]) -> dict[tuple[int, int], Place]:
        return geneval_files.find_pictures(folder, prompts)

    def export_official(self, folder: Path, prompts: Sequence[Prompt], pictures: Iterable[PictureSet]) -> None:
        for drawn in pictures:
            geneval_files.write_prompt_folder(folder, drawn)

    def import_official(self, file: Path, prompts: Sequence[Prompt] | None = None) -> list[Row]:
        return geneval_files.read_results(file, prompts)

    def write_results(self, folder: Path, rows: Sequence[Row]) -> None:
        geneval_files.write_results(folder / "results.jsonl", rows, self.label)


def aggregate(rows: Sequence[Row], label: str, *, seed: int = 0) -> Report:
    """The overall is the unweighted mean of the tag scores, each the mean over its pictures.

    extra: correct_pictures_frac, and solved_prompts_frac: prompts with a correct picture among those with a verdict.
    """
    verdicts = verdicts_by_prompt(rows)
    scores = per_task(verdicts, seed=seed)
    judged = [found for row in verdicts if (found := [v for v in row.verdicts if v == v])]
    flat = [v for found in judged for v in found]
    missing = [tag for tag in TAGS if tag not in scores]
    return Report(
        label=label,
        overall=task_mean_score(verdicts, seed=seed),
        columns={tag: scores[tag] for tag in (*TAGS, *scores) if tag in scores},
        extra={
            "correct_pictures_frac": float(np.mean(flat)) if flat else None,
            "solved_prompts_frac": float(np.mean([max(found) for found in judged])) if judged else None,
        },
        notes=[f"no pictures of {', '.join(missing)}: the overall is not GenEval's"] if missing else [],
    )


def _classes(prompt: Prompt) -> list[str]:
    return list(dict.fromkeys(clause["class"] for clause in (*prompt.include, *prompt.exclude)))


def _needs_labels(detector: Detector) -> bool:
    # A detector of that class has its module loaded; where it is not, there is no need to wait for transformers.
    module = sys.modules.get("thinkdraw.judges.detectors")
    return module is not None and isinstance(detector, module.OpenVocabularyDetector)
