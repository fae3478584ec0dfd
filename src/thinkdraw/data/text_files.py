"""Reads text files by one rule under every locale: encoding, line ends, JSON, CSV.

Text is UTF-8, with or without a byte order mark, or UTF-16 or UTF-32 with one; nothing is guessed and nothing replaced. A line ends
with LF, CR LF or CR and with nothing else: U+2028 and its like are part of a text. Every failure is a UserError that names file and
line, and shows no more than 80 characters of a value.
"""

import codecs
import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from thinkdraw.errors import UserError
from thinkdraw.runtime.json_types import JsonObject

SHOWN = 80
# UTF-32 comes before UTF-16, because its little-endian mark begins with UTF-16's.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_OTHER_FILES = {
    "version https://git-lfs.github.com/spec/": "is a git-lfs pointer and not the file itself. Fetch it with `git lfs pull`",
    "<!doctype html": "is a page of HTML and not the file itself. Download the raw file",
}


def text_file(path: Path) -> str:
    """Read a whole file with LF as its line ends.

    Byte order marks are dropped, also inside, where files were joined.
    """
    return decode_text(file_bytes(path), str(path))


def file_bytes(path: Path) -> bytes:
    """Read the content of a file that is to be a text."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read as a text file: {error.strerror or error}. Check the path.") from error


def decode_text(data: bytes, where: str) -> str:
    """Decode as `text_file` does. where: names the file in errors."""
    mark, codec = next(((m, c) for m, c in _MARKS if data.startswith(m)), (b"", "utf-8"))
    data = data[len(mark) :]
    try:
        text = data.decode(codec)
    except UnicodeDecodeError as error:
        line = len(re.findall(rb"\r\n|\r|\n", data[: error.start])) + 1
        raise UserError(
            f"{where} line {line} is not {codec.upper()} text (byte 0x{data[error.start]:02x}). Save the file in the encoding UTF-8."
        ) from error
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = re.sub(r"(?m)^\ufeff", "", text)
    if "\0" in text:
        raise UserError(
            f"{where} line {text[: text.index(chr(0))].count(chr(10)) + 1} holds a NUL byte: it is no text, or UTF-16 without "
            "a byte order mark. Save the file in the encoding UTF-8."
        )
    for begin, what in _OTHER_FILES.items():
        if text[:100].lstrip().lower().startswith(begin):
            raise UserError(f"{where} {what}.")
    return text


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (number from 1, line without its end), empty lines included."""
    return enumerate(text_file(path).removesuffix("\n").split("\n"), start=1)


def shorten(value: object) -> str:
    """Format a value for a message, in at most 80 characters.

    Bytes are shown only by their number.
    """
    text = repr(_without_bytes(value))
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"


_SEPARATOR_LINE = re.compile('"?sep=([,;\t])"?\n')


class _Bytes:
    def __init__(self, data: bytes | bytearray | memoryview) -> None:
        self.size = len(data)

    def __repr__(self) -> str:
        return f"<{self.size} bytes>"


def _without_bytes(value: object) -> object:
    if isinstance(value, bytes | bytearray | memoryview):
        return _Bytes(value)
    if isinstance(value, str):
        return value[: SHOWN + 1]
    if isinstance(value, Mapping):
        return {key: _without_bytes(inner) for key, inner in list(value.items())[:SHOWN]}
    return [_without_bytes(inner) for inner in value[:SHOWN]] if isinstance(value, list | tuple) else value


def column_names(row: Mapping[str, object]) -> str:
    """List the keys of a row for a message: "prompt, id"."""
    text = ", ".join(map(str, list(row)[:SHOWN]))
    return (text if len(text) <= SHOWN else text[: SHOWN - 1] + "…") or "nothing"


def check_text(text: str, where: str) -> str:
    """Return the text itself.

    Raises UserError for control characters other than blanks, and for halves of surrogate pairs.
    """
    if odd := re.search("[\0-\x08\x0e-\x1b\x7f\ud800-\udfff]", text):
        raise UserError(f"{where} holds U+{ord(odd[0]):04X}, which is no character of a text. Remove it.")
    return text


def json_rows(path: Path) -> Iterator[tuple[int, JsonObject]]:
    """Yield (line number from 1, row) of a file with a JSON object a line."""
    for number, line in text_lines(path):
        if line.strip():
            yield number, json_object(line, f"{path} line {number}")


def json_array(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield (line number from 1, item) of a file that is one JSON array.

    It is read item by item, so that an error names its line.
    """
    text, at, line = text_file(path), 0, 1
    at = text.index("[") + 1
    line += text.count("\n", 0, at)
    is_first = True
    while True:
        begin = _skip_blanks(text, at)
        line += text.count("\n", at, begin)
        if text[begin : begin + 1] == "]" and is_first:
            end = begin
        else:
            try:
                item, end = _decoder.raw_decode(text, begin)
            except (ValueError, RecursionError) as error:
                raise UserError(f"{path} line {line} is not JSON ({_reason(error)}). Correct it.") from error
            yield line, item
        is_first = False
        at = _skip_blanks(text, end)
        line += text.count("\n", begin, at)
        if text[at : at + 1] == ",":
            at += 1
        elif text[at : at + 1] == "]" and not text[at + 1 :].strip():
            return
        else:
            raise UserError(
                f"{path} line {line} is not JSON (the array has no end there, or more behind it). Correct it."
            )


def json_object(text: str, where: str) -> JsonObject:
    """Parse a JSON object. where: its file and line, for errors."""
    return object_in(json_value(text, where), where)


def json_value(text: str, where: str) -> Any:
    """Parse JSON. Raises UserError, also for a key that an object has twice."""
    try:
        return json.loads(text, object_pairs_hook=_unique_keys)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} is not JSON ({_reason(error)}). Correct it.") from error


def object_in(value: object, where: str) -> JsonObject:
    """Return the value itself. Raises UserError where it is no object."""
    if not isinstance(value, dict):
        raise UserError(f"{where} is not a JSON object, but {shorten(value)}. Write {{'key': value, …}}.")
    return value


def csv_rows(path: Path, columns: Sequence[str] = ()) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield (number of the row's last line, row); every row has all of `columns`.

    The separator is comma, semicolon or tab, whichever gives the most columns in the first line; in a .tsv it is tab.
    """
    text = text_file(path)
    blank = len(text) - len(text.lstrip("\n"))
    text = text[blank:]
    named = _SEPARATOR_LINE.match(text)  # a spreadsheet's own first line
    text = text[named.end() :] if named else text
    separators = named[1] if named else "\t" if path.suffix.lower() == ".tsv" else ",;\t"
    best = max(separators, key=lambda s: (len(set(columns) & set(names := _csv_names(text, s))), len(names)))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=best, strict=True)
    names = [name.strip() for name in _next_row(reader, path) or ()]
    if missing := [name for name in columns if name not in names]:
        raise UserError(
            f"{path} has no column {', '.join(missing)}; its first line is {shorten(text.partition(chr(10))[0])}. Check that it is "
            "the right table."
        )
    if twice := [name for name in names if name and names.count(name) > 1]:
        raise UserError(f"{path} has the column {shorten(twice[0])} twice. Name each column once.")
    while (cells := _next_row(reader, path)) is not None:
        line = reader.line_num + blank + (named is not None)
        if not cells:
            continue
        if len(cells) != len(names):
            few = "few" if len(cells) < len(names) else "many"
            raise UserError(
                f"{path} line {line} has too {few} columns, {len(cells)} and not {len(names)}. Correct that line."
            )
        yield line, dict(zip(names, cells))


def _csv_names(text: str, separator: str) -> list[str]:
    """Return the first line's cells; none where it is no CSV of that separator."""
    with suppress(csv.Error):
        return [
            n.strip() for n in next(csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True), ())
        ]
    return []


def _next_row(reader: Any, path: Path) -> list[str] | None:
    try:
        return next(reader, None)
    except csv.Error as error:
        raise UserError(f"{path} line {reader.line_num} is not CSV ({error}). Correct that line.") from error


def _skip_blanks(text: str, at: int) -> int:
    while text[at : at + 1] in (" ", "\t", "\n"):
        at += 1
    return at


def _unique_keys(pairs: list[tuple[str, Any]]) -> JsonObject:
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"key {shorten(next(name for name in names if names.count(name) > 1))} is given twice")
    return mapping


def _reason(error: BaseException) -> str:
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)[:160]


_decoder = json.JSONDecoder(object_pairs_hook=_unique_keys)
