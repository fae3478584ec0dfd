"""What a benchmark is: prompts, what judges say about pictures, and a report.

The step from models to rows and the step from rows to a report are separate. `judge` asks the models and keeps their
raw answers in the rows; `aggregate` needs only the rows. A row is a JSON object about one picture, made by
`row_about`; its `verdict` is a number or None.
A picture that is missing or unreadable never reaches a judge: its row has a `problem` and no raw answers. `left_out`
marks a row whose verdict is None by the benchmark's own rule, and not because a judge failed.
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
    """One prompt's pictures that exist, in the order of their sample numbers.

    index: the prompt's index in the benchmark, from 0. samples: number of each picture, from 0; a missing picture
    leaves a gap. pictures: as many, each (H, W, 3) uint8 of any size.
    """

    index: int
    prompt: Prompt
    samples: tuple[int, ...]
    pictures: tuple[np.ndarray, ...] = field(repr=False)


@dataclass(frozen=True)
class PictureFile:
    """Where an official layout has one picture.

    cell: (row, column) where the file is a 2×2 grid of equal squares.
    """

    path: Path
    cell: tuple[int, int] | None = None


@dataclass(frozen=True)
class Layout:
    """What a folder in an official layout holds.

    files: (prompt index, sample) → the picture, also for samples beyond those of the evaluation.
    expected: how files are named. left_out: file → why it is no picture of a prompt.
    notes: how the layout was read where it might be meant otherwise.
    """

    files: Mapping[tuple[int, int], PictureFile]
    expected: str = ""
    left_out: Mapping[Path, str] = field(default_factory=dict)
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Report:
    """A benchmark's numbers for one set of pictures, with 95 % intervals.

    label: the benchmark and, in brackets, its judge. Only reports of the official judge's verdicts have no brackets.
    columns: as papers print them. extra: further numbers, JSON. notes: what keeps this from being compared with
    papers.
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
    """One benchmark with its judges, made by `load_benchmark`.

    The class is called with a judge for each role and its settings, all of which have defaults. Without judges it can
    still read files and aggregate rows.
    folder: name of its prompts' folder under THINKDRAW_BENCHMARKS. prompt_file: the file in it that `prompts` reads,
    "" where it reads the folder. num_prompts, official_sha256: of the official files; a file's hash may be git's own,
    "git:…".
    roles: what is judged → registry name of the default judge for it.
    label: "geneval[hf-mask2former]"; only `import_official`'s reports leave out the brackets.
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
        """Read the official prompts in official order, with unique ids.

        Raises UserError for a file that is truncated or is another file.
        """
        ...

    def judge(self, sets: Sequence[PictureSet]) -> list[Row]:
        """Judge each picture; one row each, in order. Pictures may differ in size.

        The verdict is None where a judge had none.
        """
        ...

    def verdicts(self, rows: Sequence[Row]) -> list[PromptVerdicts]:
        """Return the headline number per prompt, sorted by prompt.

        Tasks are columns; the overall is the mean of their means.
        """
        ...

    def aggregate(self, rows: Sequence[Row]) -> Report:
        """Make the report of some rows; rows without verdict are counted and left out."""
        ...

    def official_pictures(self, folder: Path, prompts: Sequence[Prompt], samples: int) -> Layout:
        """Find the pictures in a folder of the official layout.

        The layout has the files that the original scorer would score, and every other file with the reason why it is
        left out.
        samples: pictures per prompt of this evaluation.
        Raises UserError where pictures would be judged by other prompts than theirs.
        """
        ...

    def export_official(self, folder: Path, prompts: Sequence[Prompt], pictures: Iterable[PictureSet]) -> None:
        """Write the layout that the original scorer reads.

        Raises UserError where a set is incomplete.
        """
        ...

    def import_official(self, file: Path, prompts: Sequence[Prompt] | None = None) -> list[Row]:
        """Read the rows of the original scorer's result file.

        prompts: needed where the file does not name them; else UserError.
        """
        ...


@runtime_checkable
class WritesResults(Protocol):
    """A benchmark that can write its verdicts as the original scorer's files.

    They are marked with the benchmark's own label.
    """

    def write_results(self, folder: Path, rows: Sequence[Row]) -> None: ...


@runtime_checkable
class HasColumns(Protocol):
    """A benchmark whose columns are about other things than its overall.

    `column_verdicts` gives the columns' numbers, as `verdicts` gives the headline's.
    """

    def column_verdicts(self, rows: Sequence[Row]) -> list[PromptVerdicts]: ...


@runtime_checkable
class RefusesGaps(Protocol):
    """A benchmark that may treat a missing picture as an error.

    The others count it as no verdict.
    """

    def check_missing(self, missing: Sequence[tuple[int, int]], prompts: Sequence[Prompt]) -> None:
        """Raise UserError if the rules do not allow these pictures to be missing.

        missing: (prompt index, sample) of each missing picture. prompts: all.
        """
        ...


@runtime_checkable
class ChecksPrompts(Protocol):
    """A benchmark that can check its judges and prompts before a picture is drawn."""

    def check_prompts(self, prompts: Sequence[Prompt]) -> None:
        """Raise UserError for a judge that is needed and absent, or unfit for the prompts."""
        ...


@runtime_checkable
class ReadsThoughts(Protocol):
    """A benchmark whose judges may read what the policy wrote before it drew."""

    def read_drawn(self, rows: Sequence[Row]) -> None:
        """Take the rows of drawn.jsonl, before `judge` sees their pictures."""
        ...


def row_about(pictures: PictureSet, index: int, verdict: float | bool | None, **raw: object) -> Row:
    """Make the row of the picture at `index` in a set; NaN becomes None.

    raw: what the judges said, JSON.
    """
    prompt = pictures.prompt
    return {
        "prompt_index": pictures.index,
        "prompt_id": prompt.id or prompt.text,
        "prompt": prompt.text,
        "tag": prompt.tag,
        "sample": pictures.samples[index],
        "verdict": null_for_nan(None if verdict is None else float(verdict)),
        **{key: null_for_nan(value) for key, value in raw.items()},
    }


def verdicts_by_prompt(rows: Iterable[Row], key: str = "verdict", task: str = "tag") -> list[PromptVerdicts]:
    """Collect each prompt's numbers under `key`, sorted by prompt and sample.

    None becomes NaN.
    """
    prompts: dict[int, list[Row]] = {}
    for row in sorted(rows, key=lambda row: (row["prompt_index"], row["sample"])):
        prompts.setdefault(row["prompt_index"], []).append(row)
    return [
        PromptVerdicts(
            rows_of_prompt[0][task],
            [number_or_nan(row.get(key)) for row in rows_of_prompt],
            rows_of_prompt[0]["prompt_id"],
        )
        for rows_of_prompt in prompts.values()
    ]


def batches_by_size(sets: Sequence[PictureSet], largest: int = 32) -> Iterator[tuple[list[tuple[int, int]], Tensor]]:
    """Yield batches of pictures of one size, at most `largest` in each.

    A batch is ((set, index in it) of each picture, (B, H, W, 3) uint8).
    """
    by_size: dict[tuple[int, ...], list[tuple[int, int]]] = {}
    for i, pictures in enumerate(sets):
        for k, picture in enumerate(pictures.pictures):
            by_size.setdefault(picture.shape, []).append((i, k))
    for keys in by_size.values():
        for start in range(0, len(keys), largest):
            batch = keys[start : start + largest]
            yield batch, torch.from_numpy(np.stack([sets[i].pictures[k] for i, k in batch]))


def judge_name(judge: object) -> str:
    """Name a judge for labels and summaries, with its model where it has several."""
    name = str(getattr(judge, "name", type(judge).__name__))
    chosen = [value for key in ("path", "model") if isinstance(value := getattr(judge, key, None), str | Path)]
    model = str(chosen[0]).rstrip("/").rpartition("/")[2] if chosen else ""
    return f"{name}:{model}" if model and model != name else name


def require_judge(name: str, role: str, judge: object) -> None:
    """Raise UserError if the judge of a role is absent."""
    if judge is None:
        raise UserError(f"{name} needs a judge of {role!r}, and there is none. Name one: judges.{role}=NAME.")


def judge_facts(judge: object) -> JsonObject:
    """Describe a judge for a summary: name, path or model, revision and dtype.

    null where it is not known.
    """
    facts = {key: getattr(judge, key, None) for key in ("path", "revision", "dtype", "hard")}
    facts["revision"] = facts["revision"] or getattr(getattr(judge, "policy", None), "revision", None)
    known = {key: value if isinstance(value, bool) else str(value) for key, value in facts.items() if value is not None}
    return {"name": judge_name(judge), "revision": None, **known}


def number_or_nan(value: float | None) -> float:
    return math.nan if value is None else float(value)


def null_for_nan(value: Any) -> Any:
    """Replace every NaN by None, since JSON has no NaN."""
    if isinstance(value, Mapping):
        return {key: null_for_nan(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [null_for_nan(inner) for inner in value]
    return None if isinstance(value, float) and math.isnan(value) else value
