"""DPG-Bench's files: a grid or a picture per prompt, and the results as text.

A file is named by its item; a grid has 2×2 pictures. The results' numbers are read from the right of a line, because
paths and questions may hold commas.
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
from thinkdraw.benchmarks.picture_files import LayoutBuilder
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
"""The answer in our files of details where there is none; upstream's judge always has one."""


@dataclass(frozen=True)
class Results:
    """The contents of a results file.

    items: item id → scores of its crops, 0..1. first_level, second_level, overall: 0..100.
    label: who judged, where the file was not written by DPG-Bench's own script.
    """

    items: Mapping[str, tuple[float, ...]]
    first_level: Mapping[str, float]
    second_level: Mapping[str, float]
    overall: float | None
    label: str | None = None


def item_of(path: Path | str) -> str:
    """Return the item that a file belongs to: its name up to the first dot."""
    return str(path).replace("\\", "/").rpartition("/")[2].split(".")[0]


def answer_record(question: Question, **answer: float | str | None) -> JsonObject:
    """Build a row's form of an answer.

    answer: `p_yes`, or a judge's words as `answer`; None = no verdict.
    """
    return {
        "id": question.id, "question": question.text, "category": question.category,
        "depends_on": list(question.depends_on), **answer,
    }  # fmt: skip


def make_grid(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Put four pictures (R, R, 3) together to (2R, 2R, 3)."""
    top, bottom = (np.concatenate(pictures[i : i + 2], axis=1) for i in (0, 2))
    return np.concatenate([top, bottom], axis=0)


def find_pictures(folder: Path, prompts: Sequence[Prompt], as_grids: bool) -> Layout:
    """Find the pictures of known items.

    as_grids: each file holds four pictures; else a file is one picture.
    """
    indices = {prompt.id: index for index, prompt in enumerate(prompts)}
    builder = LayoutBuilder("ITEM_ID.png")
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in SUFFIXES:
            builder.skip(path)
        elif (index := indices.get(item_of(path))) is None:
            builder.left_out[path] = "of an item that is not in the table"
        else:
            builder.add(index, 0, path)
    whole = builder.build()
    if not as_grids:
        note = "each file was read as one picture (settings.layout=grid: as a 2×2 grid of four)"
        return dataclasses.replace(whole, notes=[note])
    note = "each file was read as a 2×2 grid of four pictures (samples=1, or settings.layout=single: as one)"
    cells = {
        (index, sample): PictureFile(file.path, cell)
        for (index, _), file in whole.files.items()
        for sample, cell in enumerate(CELLS)
    }
    return dataclasses.replace(whole, files=cells, notes=[note])


def write_file(folder: Path, picture_set: PictureSet) -> Path:
    """Write one prompt's file and return its path.

    Four pictures become a grid, a single one is written alone. Raises UserError for another number, for pictures of a
    grid that are not square and of one size, and for an item that cannot be a file's name.
    """
    item = picture_set.prompt.id
    if not item or "." in item or "/" in item:
        raise UserError(f"item {item!r} cannot name a grid: DPG-Bench's ids have neither dot nor slash. Correct it.")
    path = folder / f"{item}.png"
    if picture_set.samples == (0,):
        atomic_write_bytes(path, to_png(picture_set.pictures[0]))
        return path
    sizes = {picture.shape[:2] for picture in picture_set.pictures}
    if picture_set.samples != (0, 1, 2, 3) or len(sizes) > 1 or any(height != width for height, width in sizes):
        shown_sizes = ", ".join(f"{width}×{height}" for height, width in sorted(sizes)) or "no size"
        raise UserError(
            f"item {item} has pictures {list(picture_set.samples)} of {shown_sizes}. A grid needs pictures 0 to 3, square and of one "
            "size. Draw 4 pictures per prompt, or 1, which is written alone."
        )
    atomic_write_bytes(path, to_png(make_grid(picture_set.pictures)))
    return path


def rows_of_results(path: Path, prompts: Sequence[Prompt] | None = None) -> list[Row]:
    """Read the rows of a results file, one per crop.

    They have answers where the file of details lies beside it. prompts: those of the question table, which the
    answers need.
    Raises UserError for an item that is not one of them.
    """
    results = read_results(path)
    by_id = {prompt.id: (index, prompt) for index, prompt in enumerate(prompts or ())}
    if prompts is not None and (unknown := sorted(results.items.keys() - by_id.keys())):
        raise UserError(
            f"{path}: {unknown[0]!r} is no item of the prompts ({len(unknown)} such). Give the right table."
        )
    details_file = details_path(path)
    details = read_details(details_file) if details_file != path and details_file.is_file() else {}
    rows: list[Row] = []
    for rank, (item, scores) in enumerate(results.items.items()):
        index, prompt = by_id.get(item, (rank, Prompt("", item, "dpg")))
        for sample, score in enumerate(scores):
            row: Row = {"prompt_index": index, "prompt_id": item, "prompt": prompt.text, "tag": "dpg", "sample": sample}
            row |= {
                "verdict": None if math.isnan(score) else score,
                "answers": _answers(prompt, details.get((item, sample), [])),
            }
            rows.append(row | ({"label": results.label} if results.label else {}))
    return rows


def read_results(path: Path) -> Results:
    """Read a results file, official or ours. Raises UserError if it has no item."""
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
    """Write the official results file.

    Its line about the model says who judged, so nobody takes it for official. rows: those of the pictures. folder: of
    the grids. Items with a picture that has no verdict are left out, as upstream.
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


def details_path(path: Path) -> Path:
    """Return the path of the file of details that belongs to a results file."""
    return path.with_name(path.name.replace(".txt", "_detail.txt"))


def write_details(path: Path, rows: Sequence[Row]) -> None:
    """Write the file of details beside the results file `path`.

    It has each question's answer about each crop of a grid.
    """
    lines = []
    for row in sorted(rows, key=lambda row: (row["prompt_index"], row["sample"])):
        top, left = CELLS[row["sample"]]
        for answer in row.get("answers", ()):
            box = tuple(edge * row["side"] for edge in (left, top, left + 1, top + 1))
            word = {1.0: "yes", 0.0: "no"}.get(point(answer["p_yes"]), NO_VERDICT)
            lines.append(f"{row['prompt_id']}.png, {box}, {answer['question']}, {word}\n")
    atomic_write_text(details_path(path), "".join(lines))


def read_details(path: Path) -> dict[tuple[str, int], list[tuple[str, str]]]:
    """Read (item, crop) → (question, answer), in the order of asking.

    Raises UserError naming a line of another form.
    """
    answers: dict[tuple[str, int], list[tuple[str, str]]] = {}
    for number, line in text_lines(path):
        if not (match := _DETAIL.fullmatch(line)):
            raise UserError(
                f"{path} line {number} is not `path, (crop), question, answer`. Give the scorer's own file."
            )
        left, top, _, _ = (int(edge) for edge in match["box"].split(", "))
        crop = CELLS.index((int(top > 0), int(left > 0)))
        answers.setdefault((item_of(match["path"]), crop), []).append((match["question"], match["answer"]))
    return answers


def _answers(prompt: Prompt, details: Sequence[tuple[str, str]]) -> list[JsonObject]:
    """Build a row's answers.

    None unless they are about the prompt's questions, in their order.
    """
    if [question.text for question in prompt.questions] != [question for question, _ in details]:
        return []
    return [
        answer_record(question, answer=None if answer == NO_VERDICT else answer)
        for question, (_, answer) in zip(prompt.questions, details)
    ]


def _numbers_from_the_right(line: str) -> tuple[str, list[float]]:
    """Split off the numbers at the end of a line.

    'a, b.png, 0.5, 1.0' → ('a, b.png', [0.5, 1.0]).
    """
    pieces, numbers = line.split(", "), []
    while len(pieces) > 1:
        try:
            numbers.insert(0, float(pieces[-1]))
        except ValueError:
            break
        pieces.pop()
    return ", ".join(pieces), numbers


def _number(text: str, path: Path, line: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise UserError(f"{path}: {line!r} has no number where one belongs. Give the scorer's own file.") from error
