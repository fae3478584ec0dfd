"""GenEval's files: a folder per prompt, and the results as JSON lines.

A folder holds `00000/metadata.jsonl`, and `00000/samples/0000.png` onwards.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path

from thinkdraw.benchmarks.base import Layout, PictureSet, Row
from thinkdraw.benchmarks.picture_files import LayoutBuilder
from thinkdraw.data.text_files import json_object, json_rows, shorten
from thinkdraw.errors import UserError
from thinkdraw.images import to_png
from thinkdraw.runtime.files import atomic_write_bytes, atomic_write_text
from thinkdraw.runtime.json_types import JsonMapping, JsonObject
from thinkdraw.types import Prompt

_SAMPLE = re.compile(r"(\d+)\.png")
_FILENAME = re.compile(r"(\d+)/samples/(\d+)\.png$")
_TEXTS = ("filename", "tag", "prompt", "reason", "metadata", "details")


def metadata_of(prompt: Prompt) -> JsonObject:
    """Return the prompt's official record, its keys in the official order."""
    record = prompt.metadata()
    return {key: record[key] for key in ("tag", "include", "exclude", "prompt") if key in record}


def find_pictures(folder: Path, prompts: Sequence[Prompt]) -> Layout:
    """Find the pictures of an official folder.

    Folders whose names are all digits belong to the prompt of that number. Raises UserError where a folder's own
    metadata is that of another prompt, or where folders without metadata are numbered from 1: their pictures would be
    judged wrongly.
    """
    builder = LayoutBuilder("00000/samples/0000.png")
    folders = sorted(path for path in folder.iterdir() if path.is_dir() and path.name.isdecimal())
    unnamed = 0
    for folder_of_prompt in folders:
        index, samples = int(folder_of_prompt.name), folder_of_prompt / "samples"
        files = sorted(samples.iterdir()) if samples.is_dir() else []
        if index >= len(prompts):
            builder.left_out |= dict.fromkeys(files, f"of prompts beyond the {len(prompts)} there are")
            continue
        unnamed += not _check_metadata(folder_of_prompt / "metadata.jsonl", prompts[index])
        for path in files:
            if match := _SAMPLE.fullmatch(path.name):
                builder.add(index, int(match[1]), path)
            else:
                builder.skip(path)
    if unnamed:
        builder.refuse_numbers_from_one(
            [int(path.name) for path in folders], len(prompts), f"folders in {folder} without metadata.jsonl"
        )
        builder.notes.append(
            f"{unnamed} folders have no metadata.jsonl: their numbers alone say which prompts they are of"
        )
    return builder.build()


def write_prompt_folder(folder: Path, picture_set: PictureSet) -> Path:
    """Write one prompt's folder for the official tool, and return it.

    Raises UserError if it holds further samples, which the official tool would count.
    """
    prompt_folder = folder / f"{picture_set.index:05d}"
    samples = prompt_folder / "samples"
    names = [f"{number:04d}.png" for number in picture_set.samples]
    if extra := sorted({path.name for path in samples.glob("*.png")} - set(names)):
        raise UserError(f"{samples} already holds {', '.join(extra)} from another run. Choose an empty folder.")
    atomic_write_text(prompt_folder / "metadata.jsonl", json.dumps(metadata_of(picture_set.prompt)))
    for name, picture in zip(names, picture_set.pictures, strict=True):
        atomic_write_bytes(samples / name, to_png(picture))
    return prompt_folder


def write_results(path: Path, rows: Sequence[Row], label: str) -> None:
    """Write the official results file, with one more key: `label`.

    It tells `read_results` whose verdicts these are. A picture without a verdict has `"correct": null`; a missing
    picture has no line, as upstream.
    """
    lines = []
    for row in rows:
        if "metadata" not in row:
            continue
        official = {
            "filename": f"{row['prompt_index']:05d}/samples/{row['sample']:04d}.png",
            "tag": row["tag"],
            "prompt": row["prompt"],
            "correct": None if row["verdict"] is None else bool(row["verdict"]),
            "reason": row.get("reason", ""),
            "metadata": json.dumps(row["metadata"]),
            "details": json.dumps(row.get("details", {})),
            "label": label,
        }
        # pandas, which writes the official file, escapes slashes.
        lines.append(json.dumps(official, separators=(",", ":")).replace("/", "\\/") + "\n")
    atomic_write_text(path, "".join(lines))


def read_results(path: Path, prompts: Sequence[Prompt] | None = None) -> list[Row]:
    """Read the rows of an official results file.

    A row's prompt is known by its text if `prompts` are given, else by the file's name. Rows of a file that
    `write_results` made keep its label. Raises UserError naming the line if the file is broken.
    """
    by_text = {prompt.text: index for index, prompt in enumerate(prompts or ())}
    index_of_metadata: dict[str, int] = {}
    rows = []
    for line, record in json_rows(path):
        where = f"{path} line {line}"
        _check(where, record)
        metadata, details = (json_object(record[key], f"{where}, {key}") for key in ("metadata", "details"))
        name = _FILENAME.search(record["filename"].replace("\\", "/"))
        index, sample = (
            (int(name[1]), int(name[2]))
            if name
            else (index_of_metadata.setdefault(record["metadata"], len(index_of_metadata)), line)
        )
        if prompts is not None:
            if record["prompt"] not in by_text:
                raise UserError(
                    f"{where}: {shorten(record['prompt'])} is not a prompt of the prompt file. Give the right prompt file."
                )
            index = by_text[record["prompt"]]
        rows.append(
            {"prompt_index": index, "prompt_id": f"{index:05d}", "prompt": record["prompt"], "tag": record["tag"],
             "sample": sample, "verdict": None if record["correct"] is None else float(record["correct"]),
             "reason": record["reason"], "metadata": metadata, "details": details}
            | ({"label": record["label"]} if "label" in record else {})
        )  # fmt: skip
    if not rows:
        raise UserError(f"{path} is empty; it needs one JSON object per picture.")
    return rows


def _check_metadata(path: Path, prompt: Prompt) -> bool:
    """Tell whether a folder itself says which prompt it belongs to.

    Raises UserError where it names another prompt.
    """
    if not path.is_file():
        return False
    rows = [row for _, row in json_rows(path)]
    if len(rows) != 1 or rows[0].get("prompt") != prompt.text:
        text = rows[0].get("prompt") if rows else None
        raise UserError(
            f"{path} says prompt {shorten(text)}, the prompt file has {shorten(prompt.text)} there. Give the prompt file that was drawn."
        )
    return True


def _check(where: str, row: JsonMapping) -> None:
    for key in (*_TEXTS, "correct"):
        if key not in row:
            raise UserError(f"{where}: the key {key!r} is missing. Give a results file of GenEval's scorer.")
        if not isinstance(row[key], bool | None if key == "correct" else str):
            raise UserError(
                f"{where}: {key!r} has the wrong type: {shorten(row[key])}. Give a results file of GenEval's scorer."
            )
