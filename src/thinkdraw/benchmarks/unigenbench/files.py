"""UniGenBench's files: prompts, pictures as `INDEX_K.png`, answers and results."""

import re
from collections.abc import Sequence
from pathlib import Path

from thinkdraw.benchmarks.base import Layout, PictureSet, Row, row_about
from thinkdraw.benchmarks.picture_files import LayoutBuilder
from thinkdraw.data.tables import resolve_inside
from thinkdraw.data.text_files import csv_rows, json_object, text_file
from thinkdraw.errors import UserError
from thinkdraw.images import to_png
from thinkdraw.runtime.files import atomic_write_bytes
from thinkdraw.types import Prompt, Question

_PICTURE = re.compile(r"(\d+)_(\d+)\.png")
_SCORE = re.compile(r"<score>\s*\[([01\s,]*)\]\s*</score>")
_MISSING_COMMA = re.compile(r'"(\s+)"')
_KIND_SEPARATOR = " | "


def read_prompts(path: Path) -> list[Prompt]:
    """Read prompts with a question per test point.

    A question's category is the test point's kind, its text the description. The tag lists the kinds. A comma that is
    missing between two entries, as in row 509 of the long file, is put in.
    """
    prompts = []
    for line, row in csv_rows(path, ("index", "prompt_en", "sub_dims_en")):
        where = f"{path} line {line}"
        points = _points(row["sub_dims_en"], where)
        questions = tuple(Question(i, text, category=kind) for i, (kind, text) in enumerate(points, start=1))
        tag = _KIND_SEPARATOR.join(kind for kind, _ in points)
        prompts.append(Prompt(row["prompt_en"].strip(), row["index"].strip(), tag, questions=questions))
    if not prompts:
        raise UserError(f"{path} holds no prompt. Give UniGenBench's test_prompts_en.csv.")
    return prompts


def kinds_of(tag: str) -> list[str]:
    """List the kinds of test points in a prompt's tag."""
    return tag.split(_KIND_SEPARATOR)


def dimension_of(kind: str) -> str:
    """ "Attribute - Color" → "Attribute": the text before the first hyphen."""
    return kind.partition("-")[0].strip()


def read_points(answer: str, count: int) -> list[float] | None:
    """Parse the first `<score>[1, 0, …]</score>` of a judge's answer.

    None where it is absent or not of `count` entries.
    """
    match = _SCORE.search(answer)
    if match is None:
        return None
    entries = [entry.strip() for entry in match[1].split(",")]
    return [float(entry) for entry in entries] if len(entries) == count and set(entries) <= {"0", "1"} else None


def read_rubric(path: Path, fields: Sequence[str]) -> str:
    """Read the rubric's text. Raises UserError where a field is not in it."""
    text = text_file(path)
    for field in fields:
        if field not in text:
            raise UserError(f"rubric {path} has no {field}, where it belongs. Write it into the text.")
    return text


def find_pictures(folder: Path, prompts: Sequence[Prompt]) -> Layout:
    """Find the pictures of known prompts.

    Raises UserError where the pictures' numbers begin at 1 and the table's at 0.
    """
    index_of = {prompt.id: index for index, prompt in enumerate(prompts)}
    builder, numbers = LayoutBuilder("INDEX_K.png"), set()
    for path in sorted(folder.iterdir()):
        match = _PICTURE.fullmatch(path.name)
        if not match:
            builder.skip(path)
            continue
        numbers.add(int(match[1]))
        if match[1] in index_of:
            builder.add(index_of[match[1]], int(match[2]), path)
        else:
            builder.left_out[path] = "of an index that is not in the table"
    if "0" in index_of:
        builder.refuse_numbers_from_one(numbers, len(prompts), f"pictures in {folder}")
    return builder.build()


def write_pictures(folder: Path, picture_set: PictureSet) -> None:
    for sample, picture in zip(picture_set.samples, picture_set.pictures, strict=True):
        atomic_write_bytes(resolve_inside(folder, f"{picture_set.prompt.id}_{sample}.png", "export"), to_png(picture))


def read_results(path: Path) -> list[Row]:
    """Read the rows of upstream's CSV; a point is one where its score equals 1.

    Of several rows about one picture the last counts.
    """
    rows: dict[tuple[str, int], Row] = {}
    numbers: dict[str, int] = {}
    for line, row in csv_rows(path, ("index", "prompt", "img_path", "result_json")):
        where = f"{path} line {line}"
        result = json_object(row["result_json"], where)
        kinds, scores = result.get("testpoint"), result.get("score")
        picture = _PICTURE.search(row["img_path"])
        if not isinstance(kinds, list) or not isinstance(scores, list) or len(kinds) != len(scores) or not picture:
            raise UserError(f"{where}: img_path or result_json is not of upstream's form. Give the scorer's CSV.")
        points = [float(score == 1) for score in scores]
        prompt = Prompt(row["prompt"], picture[1], _KIND_SEPARATOR.join(map(str, kinds)))
        index = int(picture[1]) if picture[1].isdecimal() else numbers.setdefault(picture[1], len(numbers))
        alone = PictureSet(index, prompt, (int(picture[2]),), ())
        rows[picture[1], int(picture[2])] = row_about(alone, 0, sum(points) / len(points), points=points)
    if not rows:
        raise UserError(f"{path} holds no result. Give the CSV of upstream's scorer.")
    return list(rows.values())


def _points(text: str, where: str) -> list[tuple[str, str]]:
    try:
        record = json_object(text, where)
    except UserError:
        record = json_object(_MISSING_COMMA.sub(r'",\1"', text), where)
    kinds, descriptions = record.get("Testpoints"), record.get("Testpoint Description")
    if (
        not isinstance(kinds, list)
        or not isinstance(descriptions, list)
        or len(kinds) != len(descriptions)
        or not kinds
    ):
        raise UserError(
            f"{where}: Testpoints and Testpoint Description are not lists of the same length. Correct that line."
        )
    return [(str(kind), str(text)) for kind, text in zip(kinds, descriptions)]
