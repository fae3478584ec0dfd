"""What a benchmark is: prompts, what its judges say about pictures, and how that becomes a report.

Models → rows and rows → report are apart: `judge` asks the models and keeps what they saw in the rows, raw; `aggregate`
needs the rows alone. A row is a JSON object about one picture, made by `row_about`; its `verdict` is a number or None.
A picture that is missing or cannot be read never reaches a judge: it has a row with `problem` and without raw answers.
`left_out` marks a row whose verdict is None by the benchmark's own rule and not because a judge failed.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from thinkdraw.benchmarks.statistics import PromptVerdicts, Score
from thinkdraw.errors import UserError
from thinkdraw.runtime.json_types import JsonMapping, JsonObject
from thinkdraw.types import Prompt

Row = JsonObject


@dataclass(frozen=True)
class PictureSet:
    """The pictures of one prompt that are there, in the order of their sample numbers.

    index: the prompt's place in the benchmark, from 0. samples: number of each picture, from 0; a gap is a picture that
    is missing. pictures: as many, each (H, W, 3) uint8 of any size.
    """

    index: int
    prompt: Prompt
    samples: tuple[int, ...]
    pictures: tuple[np.ndarray, ...] = field(repr=False)


@dataclass(frozen=True)
class PictureFile:
    """Where an official layout has one picture. cell: (row, column) where the file is a 2×2 grid of equal squares."""

    path: Path
    cell: tuple[int, int] | None = None


@dataclass(frozen=True)
class Layout:
    """What a folder in an official layout holds.

    places: (prompt index, sample) → the picture; more samples than are asked for included. expected: how files are named.
    left_out: file → why it is no picture of a prompt. notes: how the layout was read where it might be meant otherwise.
    """

    places: Mapping[tuple[int, int], PictureFile]
    expected: str = ""
    left_out: Mapping[Path, str] = field(default_factory=dict)
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Report:
    """A benchmark's numbers for one set of pictures, with 95 % intervals.

    label: the benchmark and, in brackets, its judge; without brackets only where the official judge gave the verdicts.
    columns: as papers print them. extra: further numbers, JSON. notes: what keeps this from being compared with papers.
    scale: published numbers are these times `scale`. unit: what the `pictures` of the scores count.
    """

    label: str
    overall: Score
    columns: Mapping[str, Score]
    extra: JsonMapping = field(default_factory=dict)
    notes: Sequence[str] = ()
    scale: float = 1.0
    unit: str = "pictures"


class Benchmark(Protocol):
    """One benchmark with its judges, made by `load_benchmark`: the class is called with a judge per role and its settings,
    all of which have defaults; without judges it can still read files and aggregate rows.

    folder: name of its prompts' folder under THINKDRAW_BENCHMARKS. prompt_file: the file in it that `prompts` reads, ""
    where it reads the folder. num_prompts, official_sha256: of the official files; a file's hash may be git's own, "git:…".
    roles: what is judged → registry name of the judge for it where the user names none.
    label: "geneval[hf-mask2former]"; brackets are left out only by `import_official`'s reports.
    """

    name: str
    folder: str
    prompt_file: str
    num_prompts: int
    official_sha256: Sequence[str]
    roles: Mapping[str, str]
    pictures_per_prompt: int

    @property
    def label(self) -> str: ...

    def prompts(self, path: Path) -> list[Prompt]:
        """The official prompts, in official order, with unique ids. Raises UserError for a file that is cut or not the one."""
        ...

    def judge(self, sets: Sequence[PictureSet]) -> list[Row]:
        """A row per picture, in order; verdict None where a judge had none. Pictures may differ in size."""
        ...

    def verdicts(self, rows: Sequence[Row]) -> list[PromptVerdicts]:
        """The headline number per prompt, sorted by prompt: tasks are columns, and the overall is the mean of their means."""
        ...

    def aggregate(self, rows: Sequence[Row]) -> Report:
        """The report of some rows; rows without verdict are counted and left out."""
        ...

    def official_pictures(self, folder: Path, prompts: Sequence[Prompt], samples: int) -> Layout:
        """Where the pictures are in a folder of the official layout. samples: pictures per prompt that are asked for.

        What the original scorer would score, and every other file with the reason why it is left out. Raises UserError where
        pictures would be judged by other prompts than theirs.
        """
        ...

    def export_official(self, folder: Path, prompts: Sequence[Prompt], pictures: Iterable[PictureSet]) -> None:
        """Write the layout that the original scorer reads. Raises UserError where a set is incomplete."""
        ...

    def import_official(self, file: Path, prompts: Sequence[Prompt] | None = None) -> list[Row]:
        """Rows of the original scorer's result file. prompts: needed where the file does not name them; else UserError."""
        ...


@runtime_checkable
class WritesResults(Protocol):
    """A benchmark that can say its verdicts in the form of the original scorer's files, marked with its own label."""

    def write_results(self, folder: Path, rows: Sequence[Row]) -> None: ...


@runtime_checkable
class HasColumns(Protocol):
    """A benchmark whose columns are about other things than its overall: what `verdicts` is for the headline number."""

    def column_verdicts(self, rows: Sequence[Row]) -> list[PromptVerdicts]: ...


@runtime_checkable
class RefusesGaps(Protocol):
    """A benchmark by whose rules a picture that is missing may be an error, and not only without verdict."""

    def check_missing(self, missing: Sequence[tuple[int, int]], prompts: Sequence[Prompt]) -> None:
        """missing: (prompt index, sample) of pictures that were asked for. prompts: all. Raises UserError."""
        ...


@runtime_checkable
class ChecksPrompts(Protocol):
    """A benchmark that can tell, before the first picture is drawn, whether its judges can be asked about these prompts."""

    def check_prompts(self, prompts: Sequence[Prompt]) -> None:
        """Raises UserError for a judge that is needed and was left out, and for words that it cannot be asked about."""
        ...


def row_about(pictures: PictureSet, place: int, verdict: float | bool | None, **raw: object) -> Row:
    """The row of picture number `place` of a set; NaN becomes None. raw: what the judges said, JSON."""
    prompt = pictures.prompt
    return {
        "prompt_index": pictures.index,
        "prompt_id": prompt.id or prompt.text,
        "prompt": prompt.text,
        "tag": prompt.tag,
        "sample": pictures.samples[place],
        "verdict": null_for_nan(None if verdict is None else float(verdict)),
        **{key: null_for_nan(value) for key, value in raw.items()},
    }


def verdicts_by_prompt(rows: Iterable[Row], key: str = "verdict", task: str = "tag") -> list[PromptVerdicts]:
    """Each prompt's numbers under `key`, none as NaN, sorted by prompt and sample."""
    prompts: dict[int, list[Row]] = {}
    for row in sorted(rows, key=lambda row: (row["prompt_index"], row["sample"])):
        prompts.setdefault(row["prompt_index"], []).append(row)
    return [
        PromptVerdicts(found[0][task], [number_or_nan(row.get(key)) for row in found], found[0]["prompt_id"])
        for found in prompts.values()
    ]


def batches_by_size(sets: Sequence[PictureSet], largest: int = 32) -> Iterator[tuple[list[tuple[int, int]], Tensor]]:
    """((set, place in it) of each picture, (B, H, W, 3) uint8) with pictures of one size per batch, at most `largest`."""
    by_size: dict[tuple[int, ...], list[tuple[int, int]]] = {}
    for i, pictures in enumerate(sets):
        for k, picture in enumerate(pictures.pictures):
            by_size.setdefault(picture.shape, []).append((i, k))
    for places in by_size.values():
        for start in range(0, len(places), largest):
            part = places[start : start + largest]
            yield part, torch.from_numpy(np.stack([sets[i].pictures[k] for i, k in part]))


def judge_name(judge: object) -> str:
    """How a label and a summary name a judge: its name, and its model where it has a choice of them."""
    name = str(getattr(judge, "name", type(judge).__name__))
    chosen = [value for key in ("path", "model") if isinstance(value := getattr(judge, key, None), str | Path)]
    model = str(chosen[0]).rstrip("/").rpartition("/")[2] if chosen else ""
    return f"{name}:{model}" if model and model != name else name


def check_given(name: str, role: str, judge: object) -> None:
    """Raises UserError where a benchmark cannot do without the judge of a role."""
    if judge is None:
        raise UserError(f"{name} needs a judge of {role!r}, and none was given. Name one: --judge {role}=NAME.")


def judge_facts(judge: object) -> JsonObject:
    """What a summary says about a judge: name, the path or model asked for, revision and dtype, null where not known."""
    facts = {key: getattr(judge, key, None) for key in ("path", "revision", "dtype", "hard")}
    facts["revision"] = facts["revision"] or getattr(getattr(judge, "policy", None), "revision", None)
    known = {key: value if isinstance(value, bool) else str(value) for key, value in facts.items() if value is not None}
    return {"name": judge_name(judge), "revision": None, **known}


def number_or_nan(value: float | None) -> float:
    return math.nan if value is None else float(value)


def null_for_nan(value: Any) -> Any:
    """The same with None for every NaN, which JSON does not have."""
    if isinstance(value, Mapping):
        return {key: null_for_nan(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [null_for_nan(inner) for inner in value]
    return None if isinstance(value, float) and math.isnan(value) else value
