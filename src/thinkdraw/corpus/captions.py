"""Finds the caption of a picture: a text file beside it, JSON, metadata or a cell.

One rule holds for all. A text or bytes are a caption, without blanks around it. Of a list, the caption is the first
text that is not empty. Nothing is no caption. Anything else, such as a mapping, is refused. Files are read as prompt
files are.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from thinkdraw.data.tables import table_rows
from thinkdraw.data.text_files import check_text, decode_text, json_value, shorten
from thinkdraw.errors import UserError
from thinkdraw.runtime.json_types import JsonObject

READ, BARE, SEVERAL = "read", "without caption", "with several captions, the first is used"
BESIDE = (".txt", ".caption", ".json")
"""Suffixes of caption files beside a picture. The first that is there and holds a caption counts."""
METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
"""Tables of `file_name` and `caption` or `text`, in the folder of the files that they name or in one above it."""
_FIELDS = ("caption", "text")


def caption_of(value: object, where: str, counts: Counter[str]) -> str:
    """Return the caption that a field or a cell holds, "" for none.

    Raises UserError for a value of another kind.
    """
    if isinstance(value, list | tuple):
        texts = [text for item in value if (text := _text_of(item, where))]
        counts[SEVERAL] += len(texts) > 1
        return texts[0] if texts else ""
    return _text_of(value, where)


def caption_beside(files: Mapping[str, tuple[str, bytes]], counts: Counter[str]) -> str:
    """Return the caption in the files that share a picture's name.

    files: suffix → (file in words, content).
    """
    for suffix in BESIDE:
        if suffix in files:
            where, data = files[suffix]
            value: object = decode_text(data, where)
            if suffix == ".json":
                value = _field_of(json_value(decode_text(data, where) or "null", where))
            if caption := caption_of(value, where, counts):
                return caption
    return ""


def metadata_captions(folder: Path, files: Sequence[Path], pictures: set[str], counts: Counter[str]) -> dict[str, str]:
    """Map pictures to their captions in the metadata files of a folder.

    All paths are relative to the folder. Raises UserError for a table without `file_name` and for two captions of one
    picture.
    """
    captions: dict[str, str] = {}
    for file in files:
        for row in table_rows(folder / file):
            name = row.cells.get("file_name")
            if not isinstance(name, str):
                raise UserError(f"{row.where} has no `file_name`. Name the picture, relative to {file.name}.")
            caption = caption_of(_field_of(row.cells), row.where, counts)
            picture = (file.parent / name).as_posix()
            if picture not in pictures:
                counts[f"rows of {file.name} about no picture"] += 1
            elif captions.setdefault(picture, caption) != caption:
                raise UserError(
                    f"{row.where}: {shorten(name)} has another caption in an earlier row. Remove one of the two."
                )
    return captions


def _field_of(row: object) -> object:
    cells: JsonObject = row if isinstance(row, dict) else {}
    return next((cells[name] for name in _FIELDS if cells.get(name)), None)


def _text_of(value: object, where: str) -> str:
    if isinstance(value, bytes):
        value = decode_text(value, where)
    if value is not None and not isinstance(value, str):
        raise UserError(f"{where}: the caption is {shorten(value)}, not a text or a list of texts. Write it as text.")
    return check_text(value.strip(), f"{where}: the caption") if value else ""
