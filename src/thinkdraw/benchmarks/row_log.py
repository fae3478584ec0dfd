"""A file of JSON rows that only grows.

A process killed at any moment leaves every row that it had written whole.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from thinkdraw.errors import UserError
from thinkdraw.runtime.files import write_error
from thinkdraw.runtime.formats import name_file_in_errors, one_line
from thinkdraw.runtime.formats.sealed import seal_line, unseal_line
from thinkdraw.runtime.json_types import JsonObject

Row = JsonObject
WAY_OUT = "Remove the file and evaluate again."


class RowLog:
    """The rows in the file at `path`.

    A last line that a killed process left unfinished is cut off when the log is opened.
    """

    def __init__(self, path: Path):
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists():
                _cut_unfinished_line(path)
        except OSError as error:
            raise write_error(path, error) from error

    def append(self, rows: Sequence[Row]) -> None:
        """Add rows, and return when they are on disk."""
        lines = "".join(map(seal_line, rows))
        try:
            with self.path.open("ab") as file:
                file.write(lines.encode("utf-8"))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise write_error(self.path, error) from error

    def read(self) -> list[Row]:
        """Read all rows in the order of writing. Raises UserError naming a damaged line."""
        return read_rows(self.path)


def read_rows(path: Path) -> list[Row]:
    """Read all rows of a file and compare each with its digest.

    No file gives no rows. Raises UserError naming a damaged line.
    """
    rows: list[Row] = []
    if not path.exists():
        return rows
    with name_file_in_errors(path, WAY_OUT), path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                rows.append(unseal_line(line))
            except ValueError as error:
                raise UserError(f"{path} line {number} is damaged ({one_line(error)}). {WAY_OUT}") from error
    return rows


def _cut_unfinished_line(path: Path) -> None:
    """Cut the file after its last line end, which is searched for from behind."""
    with path.open("rb+") as file:
        size = end = file.seek(0, os.SEEK_END)
        while end > 0:
            begin = max(0, end - 65536)
            file.seek(begin)
            newline = file.read(end - begin).rfind(b"\n")
            if newline >= 0:
                end = begin + newline + 1
                break
            end = begin
        if end < size:
            file.truncate(end)
