"""Rows of a data set, in each form in which data sets are kept."""

import os
import re
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from thinkdraw.data.text_files import csv_rows, json_array, json_object, object_in, shorten, text_file, text_lines
from thinkdraw.errors import UserError
from thinkdraw.runtime.json_types import JsonObject

JSON_SUFFIXES = (".jsonl", ".json", ".ndjson")
TABLE_SUFFIXES = (*JSON_SUFFIXES, ".csv", ".tsv", ".parquet")
BATCH = 100  # rows of a columnar file in memory at once


@dataclass(frozen=True)
class TableRow:
    """One row of a data set.

    where: file and line, for errors. number: the line from 1, or the row where rows have no lines.
    """

    where: str
    number: int
    cells: JsonObject


def is_table(path: Path) -> bool:
    """Tell whether `table_rows` reads this file or folder."""
    return bool(_parquet_files(path) or _saved_split(path)) if path.is_dir() else path.suffix.lower() in TABLE_SUFFIXES


def table_rows(path: Path, leave_out: Collection[str] = ()) -> Iterator[TableRow]:
    """Yield the rows of a file or folder.

    A file is JSON lines, a JSON array, CSV, TSV or parquet; a folder is of parquet files or of `save_to_disk`. leave_out: columns that
    are not needed. Empty cells of a CSV are left out. Raises UserError.
    """
    suffix = path.suffix.lower()
    if path.is_dir() and (saved := _saved_split(path)):
        rows = _columnar(path, _arrow_batches(saved), leave_out)
    elif path.is_dir() or suffix == ".parquet":
        rows = _columnar(path, _parquet_batches(path, leave_out), leave_out)
    elif suffix in (".csv", ".tsv"):
        filled = ((n, {k: v for k, v in row.items() if k and v}) for n, row in csv_rows(path))
        rows = (TableRow(f"{path} line {n}", n, row) for n, row in filled)
    elif suffix in JSON_SUFFIXES:
        rows = _json_rows(path)
    else:
        raise UserError(f"{path} is no table of rows. Give {', '.join(TABLE_SUFFIXES)}, or a folder of `save_to_disk`.")
    for row in rows:
        yield TableRow(row.where, row.number, {k: v for k, v in row.cells.items() if k not in leave_out})


def _json_rows(path: Path) -> Iterator[TableRow]:
    text = text_file(path).strip()
    if text.startswith("["):
        for number, (line, item) in enumerate(json_array(path), start=1):
            where = f"{path} line {line}"
            yield TableRow(where, number, object_in(item, where))
        return
    for number, line in text_lines(path):
        if line.strip():
            if line.strip() == "{":
                raise UserError(
                    f"{path} line {number} begins an object of several lines. Write a JSON object a line, or one array of them."
                )
            yield TableRow(f"{path} line {number}", number, json_object(line, f"{path} line {number}"))


def _columnar(path: Path, batches: Iterator[pa.RecordBatch], leave_out: Collection[str]) -> Iterator[TableRow]:
    number = 0
    try:
        for batch in batches:
            names = [name for name in batch.schema.names if name not in leave_out]
            for begin in range(0, batch.num_rows, BATCH):
                for row in batch.select(names).slice(begin, BATCH).to_pylist():
                    number += 1
                    yield TableRow(f"{path} row {number}", number, row)
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise UserError(
            f"{path} cannot be read as a table: {' '.join(str(error).split())[:160]}. Check the path."
        ) from error


def _parquet_files(path: Path) -> list[Path]:
    """List a file, or the files of a folder or its `data`.

    Raises UserError where their names are of several splits.
    """
    if not path.is_dir():
        return [path]
    files = sorted((path / "data").glob("*.parquet")) or sorted(path.glob("*.parquet"))
    splits = {re.split(r"[-_.]", file.name)[0] for file in files} & {
        "train",
        "test",
        "validation",
        "val",
        "valid",
        "dev",
    }
    if len(splits) > 1:
        raise UserError(
            f"{path} holds files of the splits {', '.join(sorted(splits))}. Give a file, or a folder of one split."
        )
    return files


def _parquet_batches(path: Path, leave_out: Collection[str]) -> Iterator[pa.RecordBatch]:
    for file in _parquet_files(path):
        with pq.ParquetFile(file) as opened:
            names = [name for name in opened.schema_arrow.names if name not in leave_out]
            yield from opened.iter_batches(batch_size=BATCH, columns=names)


def _arrow_batches(folder: Path) -> Iterator[pa.RecordBatch]:
    for file in _arrow_files(folder):
        with pa.memory_map(str(file)) as mapped, pa.ipc.open_stream(mapped) as stream:
            yield from stream


def _saved_split(folder: Path) -> Path | None:
    """Return the folder of one split that `save_to_disk` wrote, or None.

    Of several splits it is `train`.
    """
    if (folder / "state.json").is_file():
        return folder
    if not (folder / "dataset_dict.json").is_file():
        return None
    splits = sorted(file.parent for file in folder.glob("*/state.json"))
    chosen = [split for split in splits if split.name == "train"] or splits
    if len(chosen) != 1:
        raise UserError(
            f"{folder} holds the splits {', '.join(s.name for s in splits) or 'of none'}. Give the folder of one."
        )
    return chosen[0]


def _arrow_files(folder: Path) -> list[Path]:
    """List the arrow files of a split."""
    state = json_object(text_file(folder / "state.json"), str(folder / "state.json"))
    try:
        return [resolve_inside(folder, file["filename"], str(folder / "state.json")) for file in state["_data_files"]]
    except (KeyError, TypeError) as error:
        raise UserError(f"{folder / 'state.json'} names no data files ({error!r}). Save the data set again.") from error


def resolve_inside(folder: Path, name: str, where: str, way_out: str = "Move it there") -> Path:
    """Return the path of a file that a data set names.

    A link counts as what it leads to. Raises UserError for a file outside `folder`: otherwise the author of the data set would choose
    what is read on this machine.
    """
    path = folder / name
    try:
        is_inside = path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError, ValueError):  # a circle of links, a NUL byte
        is_inside = False
    if not is_inside:
        raise UserError(f"{where}: {shorten(name)} is, or leads, outside the data set's folder {folder}. {way_out}.")
    return path


def counts_line(what: str, counts: Mapping[str, int]) -> str:
    """Say what became of a source's rows: "pictures: 120 read, 3 without caption"."""
    parts = [f"{count} {reason}" for reason, count in counts.items() if count or reason == "read"]
    return f"{what}: {', '.join(parts)}"


def print_counts(what: str, counts: Mapping[str, int]) -> None:
    """Print the line on standard error, in the first process of a run only."""
    if os.environ.get("RANK", "0") == "0":
        print(counts_line(what, counts), file=sys.stderr, flush=True)
