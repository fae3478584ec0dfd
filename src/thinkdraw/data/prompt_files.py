"""Readers of prompt sets: the project's own and the public benchmarks'.

Each is a function from a path to a list of prompts. A benchmark's files are read where the user keeps them. Every failure is a
UserError that names file and line.
"""

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from thinkdraw.data.tables import JSON_SUFFIXES, TABLE_SUFFIXES, is_table, table_rows
from thinkdraw.data.text_files import check_text, column_names, csv_rows, json_rows, shorten, text_file, text_lines
from thinkdraw.errors import UserError
from thinkdraw.runtime.files import atomic_write_text
from thinkdraw.runtime.json_types import JsonObject
from thinkdraw.types import Prompt, Question, Relation

COMPBENCH_CATEGORIES = (
    "color", "shape", "texture", "spatial", "3d_spatial", "numeracy", "non_spatial", "complex",
)  # fmt: skip
T2I_R1_FILE = "geneval_and_t2i_data_final"  # the name of T2I-R1's published prompts, JSON lines
PICTURE_COLUMNS = ("image", "images", "image_tokens")  # columns of SFT rows that no prompt needs
_T2I_R1_LISTS = {"nouns": "nouns", "attributed": "attr_nouns"}
_COMPBENCH_NAME = re.compile(rf"({'|'.join(COMPBENCH_CATEGORIES)})(_(train|val)\w*)?")
COMPBENCH_TRAIN = re.compile(rf"(?:{'|'.join(COMPBENCH_CATEGORIES)})_train\w*")


def read_table(path: Path) -> list[Prompt]:
    """Read rows of `prompt`, in any form of `table_rows`.

    Other fields, where present: `id`, `tag`, `include`, `exclude`, `questions`. T2I-R1's training prompts (arXiv 2505.00703) are such
    rows too: `task_type` is the tag, and `nouns`, `attr_nouns`, `spatial_info` and `numeracy_info` are read under their published names,
    which `write_prompts` keeps.
    """
    rows = ((row.where, prompt_of(row.cells, row.where, row.number)) for row in table_rows(path, PICTURE_COLUMNS))
    return check_unique_ids(rows)


def check_unique_ids(rows: Iterable[tuple[str, Prompt]]) -> list[Prompt]:
    """Return the prompts of (file and line, prompt).

    Raises UserError where two have the same id, because results are stored under it.
    """
    places: dict[str, str] = {}
    prompts = []
    for where, prompt in rows:
        if prompt.id in places:
            raise UserError(
                f"{where} has the id {shorten(prompt.id)} of {places[prompt.id]}. Give each prompt an id of its own."
            )
        places[prompt.id] = where
        prompts.append(prompt)
    return prompts


def read_text(path: Path) -> list[Prompt]:
    """Read a prompt a line; empty lines are skipped.

    Ids are the file's name and the line, counted from 0.
    """
    lines = [(n, line.strip()) for n, line in text_lines(path)]
    return [Prompt(check_text(line, f"{path} line {n}"), f"{path.stem}-{n - 1:05d}") for n, line in lines if line]


def read_geneval(path: Path) -> list[Prompt]:
    """Read GenEval's `evaluation_metadata.jsonl`.

    Ids are the names of its picture folders: 00000, 00001, …
    """
    prompts = []
    for index, (line, row) in enumerate(json_rows(path)):
        where = f"{path} line {line}"
        text_of(row, "tag", where)
        if not row.get("include"):
            raise UserError(f"{where} has no `include` clauses, which GenEval's metadata needs. Add them.")
        prompts.append(prompt_of({**row, "id": f"{index:05d}"}, where, line))
    return prompts


def read_compbench(path: Path, split: Literal["val", "train"] = "val") -> list[Prompt]:
    """Read T2I-CompBench(++): a category's text file, or a folder's files of a split.

    A file is named as upstream names it, such as `color_val.txt`. The category is the tag.
    split: `val` is for evaluation, `train` for training.
    """
    if path.is_dir():
        files = [path / f"{category}_{split}.txt" for category in COMPBENCH_CATEGORIES]
        present = [file for file in files if file.is_file()]
        if not present:
            raise UserError(f"{path} holds none of T2I-CompBench's {split} files ({files[0].name}, …). Check the path.")
        return [prompt for file in present for prompt in read_compbench(file)]
    if not (named := _COMPBENCH_NAME.fullmatch(path.stem)):
        raise UserError(
            f"{path.name} does not say its T2I-CompBench category. Name it as upstream does, {COMPBENCH_CATEGORIES[0]}_val.txt."
        )
    return [Prompt(p.text, p.id, named[1]) for p in read_text(path)]


def read_dpg(path: Path) -> list[Prompt]:
    """Read DPG-Bench.

    With questions that is `dpg_bench.csv`; without, a folder of ITEM_ID.txt, or rows of `item_id` and `prompt`.
    """
    if path.suffix.lower() in (".csv", ".tsv"):
        return _dpg_table(path)
    if path.is_dir():
        rows = [(f"{file}", file.stem, text_file(file)) for file in sorted(path.glob("*.txt"))]
    else:
        rows = [
            (r.where, id_of(r.cells, "item_id", r.where), text_of(r.cells, "prompt", r.where)) for r in table_rows(path)
        ]
    for where, _, text in rows:
        if not text.strip():
            raise UserError(f"{where} is empty. Write the prompt into it, or remove it.")
    return check_unique_ids((where, Prompt(text.strip(), id, "dpg")) for where, id, text in rows)


def _dpg_table(path: Path) -> list[Prompt]:
    columns = ("item_id", "text", "proposition_id", "dependency", "category_broad", "question_natural_language")
    texts: dict[str, str] = {}
    questions: dict[str, list[Question]] = {}
    for line, row in csv_rows(path, columns):
        item = row["item_id"]
        if texts.setdefault(item, text := row["text"].strip()) != text:
            raise UserError(
                f"{path} line {line}: item {shorten(item)} has another text than before. Correct one of them."
            )
        try:
            parents = [int(parent) for parent in row["dependency"].split(",")]
            number = int(row["proposition_id"])
        except ValueError as error:
            raise UserError(
                f"{path} line {line}: proposition_id and dependency must be whole numbers ({error}). Correct that line."
            ) from error
        # 0 is the table's way to write that a question has no parent.
        depends_on = tuple(parent for parent in parents if parent)
        question = row["question_natural_language"].strip()
        questions.setdefault(item, []).append(
            Question(number, question, depends_on, category=row["category_broad"].strip())
        )
    return [Prompt(text, item, "dpg", questions=tuple(questions[item])) for item, text in texts.items()]


def read_unigenbench(path: Path) -> list[Prompt]:
    """Read UniGenBench's English tables, without their test points.

    They are `test_prompts_en.csv`, short or long.
    """
    rows = csv_rows(path, ("index", "prompt_en"))
    return check_unique_ids(
        (f"{path} line {n}", Prompt(text_of(row, "prompt_en", f"{path} line {n}").strip(), row["index"], "unigenbench"))
        for n, row in rows
    )


FORMATS: dict[str, Callable[[Path], list[Prompt]]] = {
    "table": read_table,
    "text": read_text,
    "geneval": read_geneval,
    "compbench": read_compbench,
    "dpg": read_dpg,
    "unigenbench": read_unigenbench,
}


def read_prompts(path: Path | str, format: str | None = None) -> list[Prompt]:
    """Read the prompts of a file, or of a folder that holds a known set.

    All prompts come, in the file's order. format: a key of `FORMATS`; None infers it from names and columns. Raises UserError for what
    is missing, empty or malformed.
    """
    path = Path(path)
    if format is not None and format not in FORMATS:
        raise UserError(f"prompt format {format!r}: one of {', '.join(FORMATS)}.")
    if path.is_dir():
        names = ("evaluation_metadata.jsonl", "dpg_bench.csv", "prompts.jsonl")
        path = next((path / name for name in names if (path / name).is_file()), path)
    prompts = FORMATS[format or format_of(path)](path)
    if not prompts:
        raise UserError(f"prompt file {path} holds no prompt. Write one per line, or as JSON rows with a `prompt`.")
    return prompts


def read_training_prompts(path: Path | str) -> list[Prompt]:
    """Read prompts; of a published folder those that are meant for training.

    Of T2I-CompBench's that is `color_train.txt` and its like, eight categories as one set; of T2I-R1's its one file.
    """
    path = Path(path)
    if path.is_dir():
        if any(_COMPBENCH_NAME.fullmatch(file.stem) for file in path.glob("*.txt")):
            return read_compbench(path, "train")
        path = next((file for suffix in JSON_SUFFIXES if (file := path / f"{T2I_R1_FILE}{suffix}").is_file()), path)
    return read_prompts(path)


def is_compbench_test(path: Path) -> bool:
    """Tell whether a file has the name of a T2I-CompBench test file."""
    named = _COMPBENCH_NAME.fullmatch(path.stem) if path.suffix.lower() == ".txt" else None
    return bool(named) and named[3] == "val"


def format_of(path: Path) -> str:
    """Infer the key of `FORMATS` from names and columns. Raises UserError if unclear."""
    suffix = path.suffix.lower()
    if path.is_dir():
        stems = [file.stem for file in path.glob("*.txt")]
        if stems:
            return "compbench" if any(_COMPBENCH_NAME.fullmatch(stem) for stem in stems) else "dpg"
        if is_table(path):
            return "table"
    elif suffix == ".txt":
        return "compbench" if _COMPBENCH_NAME.fullmatch(path.stem) else "text"
    elif suffix in (".csv", ".tsv"):
        first = text_file(path).partition("\n")[0]
        return "dpg" if "item_id" in first else "unigenbench" if "prompt_en" in first else "table"
    elif is_table(path):
        first = next(table_rows(path, PICTURE_COLUMNS), None)
        if first and "item_id" in first.cells:
            return "dpg"
        return "geneval" if path.stem == "evaluation_metadata" else "table"
    elif not path.exists():
        text_file(path)  # says why it cannot be read
    raise UserError(
        f"{path}: its name does not tell the prompt format. Give .txt (a prompt a line), rows with a `prompt` "
        f"({', '.join(TABLE_SUFFIXES)}), or a folder of a public set."
    )


def write_prompts(path: Path | str, prompts: Iterable[Prompt]) -> None:
    """Write rows that `read_table` reads back to equal prompts, all or nothing."""
    atomic_write_text(path, "".join(json.dumps(row_of(p), ensure_ascii=False) + "\n" for p in prompts))


def row_of(prompt: Prompt) -> JsonObject:
    """Return a prompt as a row of the project's own form.

    Empty fields are left out, except the id.
    """
    row: JsonObject = {"id": prompt.id, "prompt": prompt.text, "tag": prompt.tag}
    row |= {"include": list(prompt.include), "exclude": list(prompt.exclude)}
    row["questions"] = [{k: v for k, v in asdict(q).items() if v not in (None, "")} for q in prompt.questions]
    row |= {"nouns": list(prompt.nouns), "attr_nouns": list(prompt.attributed)}
    row["numeracy_info"] = [{"obj_name": noun, "num": number} for noun, number in prompt.counts]
    if r := prompt.relation:
        row["spatial_info"] = {"obj1": r.subject, "obj2": r.object, "locality": r.word}
    return {k: v for k, v in row.items() if v or k == "id"}


def prompt_of(row: JsonObject, where: str, number: int) -> Prompt:
    """Make the prompt of a row.

    number: the id of a row without one. where: file and line, for errors.
    """
    structure = {name: _clauses(row, name, where) for name in ("include", "exclude")}
    try:
        questions = tuple(
            Question(**{**q, "depends_on": tuple(q.get("depends_on", ()))}) for q in row.get("questions") or ()
        )
    except (TypeError, AttributeError) as error:
        raise UserError(
            f"{where}: questions are not of the form id, text, depends_on, fact ({error}). Correct them."
        ) from error
    if not all(_is_whole(q.id) and isinstance(q.text, str) and all(map(_is_whole, q.depends_on)) for q in questions):
        raise UserError(f"{where}: questions must have whole numbers as id and depends_on, and a text. Correct them.")
    text, id = text_of(row, "prompt", where), id_of(row, "id", where) or f"{number:05d}"
    tag = id_of(row, "tag", where) or id_of(row, "task_type", where)
    return Prompt(text, id, tag, **structure, questions=questions, **_t2i_r1_fields(row, where))


def _is_whole(number: object) -> bool:
    return isinstance(number, int) and not isinstance(number, bool)


def id_of(row: JsonObject, name: str, where: str) -> str:
    """Return an id as it is written, with leading zeros; "" where there is none."""
    value = row.get(name)
    if value is None or isinstance(value, str) or _is_whole(value):
        return "" if value is None else check_text(str(value), f"{where}: `{name}`")
    raise UserError(
        f"{where}: `{name}` is {shorten(value)}, neither a text nor a whole number. Correct it, or leave it out."
    )


def _t2i_r1_fields(row: JsonObject, where: str) -> JsonObject:
    """Read T2I-R1's fields into the fields that `Prompt` has for them."""
    fields: JsonObject = {}
    for name, key in _T2I_R1_LISTS.items():
        nouns = row.get(key) or []
        if not isinstance(nouns, list) or not all(isinstance(noun, str) for noun in nouns):
            raise UserError(
                f"{where}: nouns and attr_nouns must be lists of texts, and {key} is {shorten(nouns)}. Correct them."
            )
        fields[name] = tuple(nouns)
    try:
        fields["counts"] = tuple((c["obj_name"], c["num"]) for c in row.get("numeracy_info") or ())
        if place := row.get("spatial_info"):
            fields["relation"] = Relation(place["obj1"], place["locality"], place["obj2"])
    except (TypeError, KeyError) as error:
        raise UserError(
            f"{where}: numeracy_info or spatial_info are not of T2I-R1's form, a list of {{obj_name, num}} and one "
            f"{{obj1, locality, obj2}}: they are {shorten(row.get('numeracy_info'))} and {shorten(row.get('spatial_info'))}. Correct them."
        ) from error
    if not all(isinstance(noun, str) and _is_whole(number) for noun, number in fields["counts"]):
        raise UserError(
            f"{where}: numeracy_info must name things and whole numbers, not {shorten(row['numeracy_info'])}. Correct it."
        )
    return fields


def _clauses(row: JsonObject, name: str, where: str) -> tuple[JsonObject, ...]:
    """Check and return GenEval clauses, without the empty fields that parquet adds."""
    value = row.get(name)
    if value is None:
        return ()
    clauses: list[JsonObject] = []
    for clause in value if isinstance(value, list) else [None]:
        clause = {k: v for k, v in clause.items() if v is not None} if isinstance(clause, dict) else {}
        count, position = clause.get("count"), clause.get("position")
        fits = isinstance(clause.get("class"), str) and isinstance(count, int) and count is not True and count >= 1
        if "position" in clause:
            fits = fits and isinstance(position, list) and len(position) == 2 and position[1] in range(len(clauses))
        if not fits:
            raise UserError(
                f"{where}: `{name}` is not a list of GenEval clauses: class, count of 1 or more, "
                "color, position as [relation, number of an earlier clause]. Correct it."
            )
        clauses.append(clause)
    return tuple(clauses)


def text_of(row: JsonObject, name: str, where: str) -> str:
    """Return a field that must be a text; `prompt` must not be empty."""
    value = row.get(name)
    if not isinstance(value, str) or (name == "prompt" and not value.strip()):
        what = (
            f"has no `{name}`"
            if value is None or value == ""
            else f"has no `{name}` that is a text, but {shorten(value)}"
        )
        raise UserError(f"{where} {what}; its columns are {column_names(row)}. Add it.")
    return check_text(value, f"{where}: `{name}`")
