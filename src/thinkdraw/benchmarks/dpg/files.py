"""DPG-Bench's files: a 2×2 grid per prompt, or one picture, named by its item, and the results as text.

The results' numbers are read from the right of a line, because paths and questions may hold commas.
"""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from thinkdraw.benchmarks.base import Layout, PictureFile, PictureSet, Row
from thinkdraw.benchmarks.dpg.rules import overall_score, point
from thinkdraw.benchmarks.picture_files import Finder
from thinkdraw.data.text_files import text_lines
from thinkdraw.errors import UserError
from thinkdraw.images import to_png
from thinkdraw.picture_reader import SUFFIXES
from thinkdraw.runtime.files import atomic_write_bytes, atomic_write_text
from thinkdraw.runtime.json_types import JsonObject
from thinkdraw.types import Prompt, Question

CELLS = ((0, 0), (0, 1), (1, 0), (1, 1))
"""(row, column) of pictures 0, 1, 2, 3."""
_DETAIL = re.compile(r"(?P<path>.*), \((?P<box>\d+, \d+, \d+, \d+)\), (?P<question>.*), (?P<answer>[^,]*)")
_CATEGORY = re.compile(r"\t(.+): (\S+)")
_JUDGED_BY = " judged by "
NO_VERDICT = "no verdict"
"""Stands for an answer in our files of details; upstream's judge always has one."""


@dataclass(frozen=True)
class Results:
    """A results file. items: item id → scores of its crops, 0..1. first_level, second_level, overall: 0..100.

    label: who judged, where the file was not written by DPG-Bench's own script.
    """

    items: Mapping[str, tuple[float, ...]]
    first_level: Mapping[str, float]
    second_level: Mapping[str, float]
    overall: float | None
    label: str | None = None


def item_of(path: Path | str) -> str:
    """The item that a grid belongs to: its file's name up to the first dot."""
    return str(path).replace("\\", "/").rpartition("/")[2].split(".")[0]


def answer_about(question: Question, **answer: float | str | None) -> JsonObject:
    """A row's form of an answer. answer: `p_yes`, or a judge's words as `answer`; None = no verdict."""
    return {
        "id": question.id, "question": question.text, "category": question.category,
        "depends_on": list(question.depends_on), **answer,
    }  # fmt: skip


def make_grid(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """(2R, 2R, 3) of four pictures (R, R, 3)."""
    top, bottom = (np.concatenate(pictures[i : i + 2], axis=1) for i in (0, 2))
    return np.concatenate([top, bottom], axis=0)


def find_pictures(folder: Path, prompts: Sequence[Prompt], as_grids: bool) -> Layout:
    """The pictures of the files whose item is known. as_grids: four in each file; else a file is one picture, the whole of it."""
    indices = {prompt.id: index for index, prompt in enumerate(prompts)}
    found = Finder("ITEM_ID.png")
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in SUFFIXES:
            found.leave(path)
        elif (index := indices.get(item_of(path))) is None:
            found.left_out[path] = "of an item that is not in the table"
        else:
            found.put(index, 0, path)
    whole = found.layout()
    if not as_grids:
        note = "each file was read as one picture (--set layout=grid: as a 2×2 grid of four)"
        return dataclasses.replace(whole, notes=[note])
    note = "each file was read as a 2×2 grid of four pictures (--samples 1, or --set layout=single: as one)"
    cells = {
        (index, sample): PictureFile(place.path, cell)
        for (index, _), place in whole.places.items()
        for sample, cell in enumerate(CELLS)
    }
    return dataclasses.replace(whole, places=cells, notes=[note])


def write_file(folder: Path, drawn: PictureSet) -> Path:
    """Write one prompt's file and return its path: a grid of four pictures, or the only one as it is.

    Raises UserError for another number, for pictures of a grid that are not square and of one size, and for an item that
    cannot be a file's name.
    """
    item = drawn.prompt.id
    if not item or "." in item or "/" in item:
        raise UserError(f"item {item!r} cannot name a grid: DPG-Bench's ids have neither dot nor slash. Correct it.")
    path = folder / f"{item}.png"
    if drawn.samples == (0,):
        atomic_write_bytes(path, to_png(drawn.pictures[0]))
        return path
    sizes = {picture.shape[:2] for picture in drawn.pictures}
    if drawn.samples != (0, 1, 2, 3) or len(sizes) > 1 or any(height != width for height, width in sizes):
        found = ", ".join(f"{width}×{height}" for height, width in sorted(sizes)) or "no size"
        raise UserError(
            f"item {item} has pictures {list(drawn.samples)} of {found}: a grid needs 0 to 3, square and of one size. "
            "Draw 4 pictures per prompt, or 1, which is written alone."
        )
    atomic_write_bytes(path, to_png(make_grid(drawn.pictures)))
    return path


def rows_of(path: Path, prompts: Sequence[Prompt] | None = None) -> list[Row]:
    """Rows of a results file, a row per crop; with answers where the file of details stands beside it.

    prompts: those of the question table, which the answers need. Raises UserError for an item that is not one of them.
    """
    results = read_results(path)
    by_id = {prompt.id: (index, prompt) for index, prompt in enumerate(prompts or ())}
    if prompts is not None and (strange := sorted(results.items.keys() - by_id.keys())):
        raise UserError(
            f"{path}: {strange[0]!r} is no item of the prompts ({len(strange)} such). Give the right table."
        )
    beside = details_beside(path)
    details = read_details(beside) if beside != path and beside.is_file() else {}
    rows: list[Row] = []
    for place, (item, scores) in enumerate(results.items.items()):
        index, prompt = by_id.get(item, (place, Prompt("", item, "dpg")))
        for sample, score in enumerate(scores):
            row: Row = {"prompt_index": index, "prompt_id": item, "prompt": prompt.text, "tag": "dpg", "sample": sample}
            row |= {
                "verdict": None if math.isnan(score) else score,
                "answers": _answers(prompt, details.get((item, sample), [])),
            }
            rows.append(row | ({"label": results.label} if results.label else {}))
    return rows


def read_results(path: Path) -> Results:
    """An official results file, or one of `write_results`. Raises UserError where it has no item."""
    items: dict[str, tuple[float, ...]] = {}
    levels: dict[str, dict[str, float]] = {"L1": {}, "L2": {}}
    level, overall, label = "", None, None
    for _, line in text_lines(path):
        name, scores = _numbers_from_the_right(line)
        if line.startswith("Model: "):
            label = line.partition(_JUDGED_BY)[2] or None
        elif line.startswith(("L1 category scores:", "L2 category scores:")):
            level = line[:2]
        elif level and (category := _CATEGORY.fullmatch(line)):
            levels[level][category[1]] = _number(category[2], path, line)
        elif line.startswith("DPG-Bench score:"):
            overall = _number(line.partition(":")[2], path, line)
        elif not level and len(scores) >= 2:
            items[item_of(name)] = tuple(scores[:-1])
    if not items:
        raise UserError(f"{path} has no line `path, score, …, mean`. Give the results of DPG-Bench's scorer.")
    return Results(items, levels["L1"], levels["L2"], overall, label)


def write_results(
    path: Path, rows: Sequence[Row], folder: Path | str, label: str,
    first_level: Mapping[str, float], second_level: Mapping[str, float],
) -> None:  # fmt: skip
    """Write the official results file; its line about the model says who judged, so that nobody takes it for official.

    rows: those of the pictures. folder: of the grids. Items with a picture that has no verdict are left out, as upstream.
    """
    items: dict[str, list[float | None]] = {}
    for row in sorted(rows, key=lambda row: (row["prompt_index"], row["sample"])):
        items.setdefault(row["prompt_id"], []).append(row["verdict"])
    lines, means = [], []
    for item, scores in items.items():
        judged = [score for score in scores if score is not None]
        if len(judged) == len(scores):
            means.append(sum(judged) / len(judged))
            lines.append(", ".join([f"{folder}/{item}.png", *(str(score) for score in judged), str(means[-1])]))
    lines += [f"Model: {Path(folder).name}{_JUDGED_BY}{label}", "L1 category scores:"]
    lines += [f"\t{name}: {value}" for name, value in first_level.items()]
    lines += ["L2 category scores:", *(f"\t{name}: {second_level[name]}" for name in sorted(second_level))]
    lines += [f"Image path: {folder}", f"Save results to: {path}", f"DPG-Bench score: {overall_score(means)}"]
    atomic_write_text(path, "\n".join(lines) + "\n")


def details_beside(path: Path) -> Path:
    """The file of details that belongs to a results file."""
    return path.with_name(path.name.replace(".txt", "_detail.txt"))


def write_details(path: Path, rows: Sequence[Row]) -> None:
    """Write the file of details beside the results file `path`: each question's answer about each crop of a grid."""
    lines = []
    for row in sorted(rows, key=lambda row: (row["prompt_index"], row["sample"])):
        top, left = CELLS[row["sample"]]
        for told in row.get("answers", ()):
            box = tuple(edge * row["side"] for edge in (left, top, left + 1, top + 1))
            said = {1.0: "yes", 0.0: "no"}.get(point(told["p_yes"]), NO_VERDICT)
            lines.append(f"{row['prompt_id']}.png, {box}, {told['question']}, {said}\n")
    atomic_write_text(details_beside(path), "".join(lines))


def read_details(path: Path) -> dict[tuple[str, int], list[tuple[str, str]]]:
    """(item, crop) → (question, answer) in the order of asking. Raises UserError naming a line of another form."""
    found: dict[tuple[str, int], list[tuple[str, str]]] = {}
    for number, line in text_lines(path):
        if not (parts := _DETAIL.fullmatch(line)):
            raise UserError(
                f"{path} line {number} is not `path, (crop), question, answer`. Give the scorer's own file."
            )
        left, top, _, _ = (int(edge) for edge in parts["box"].split(", "))
        crop = CELLS.index((int(top > 0), int(left > 0)))
        found.setdefault((item_of(parts["path"]), crop), []).append((parts["question"], parts["answer"]))
    return found


def _answers(prompt: Prompt, told: Sequence[tuple[str, str]]) -> list[JsonObject]:
    """A row's answers; none unless they are about the prompt's questions, in their order."""
    if [question.text for question in prompt.questions] != [question for question, _ in told]:
        return []
    return [
        answer_about(question, answer=None if answer == NO_VERDICT else answer)
        for question, (_, answer) in zip(prompt.questions, told)
    ]


def _numbers_from_the_right(line: str) -> tuple[str, list[float]]:
    """'a, b.png, 0.5, 1.0' → ('a, b.png', [0.5, 1.0])."""
    parts, numbers = line.split(", "), []
    while len(parts) > 1:
        try:
            numbers.insert(0, float(parts[-1]))
        except ValueError:
            break
        parts.pop()
    return ", ".join(parts), numbers


def _number(text: str, path: Path, line: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise UserError(f"{path}: {line!r} has no number where one belongs. Give the scorer's own file.") from error
