"""Finds a picture's bytes in a data set's cell, and crops what a policy draws."""

import base64
import binascii
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from thinkdraw.data.tables import resolve_inside
from thinkdraw.images import to_pil
from thinkdraw.picture_reader import UnreadableError


def bytes_of(value: object) -> bytes | None:
    """Return the bytes in a picture column's cell, or None.

    The cell holds bytes, a struct with `bytes`, a data URI or bare base64. Raises UnreadableError for other text.
    """
    if isinstance(value, Mapping):
        value = value.get("bytes")
    if value is None or isinstance(value, bytes):
        return value or None
    text = str(value).strip()
    if not text:
        return None
    payload = text.partition(",")[2] if text.startswith("data:") else text
    try:
        return base64.b64decode("".join(payload.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise UnreadableError(f"neither a data URI nor base64: {text[:40]!r}") from error


def file_of(cell: object, folder: Path, where: str) -> Path | bytes | None:
    """Return a row's picture as a path or as bytes, or None.

    The cell holds a path beside the row's file, bytes, a data URI or an `Image` struct. Raises UnreadableError for a cell of another
    kind, and UserError for a path that is, or leads, out of the folder.
    """
    if isinstance(cell, Mapping):
        cell = cell.get("bytes") or cell.get("path")
    if not cell:
        return None
    if isinstance(cell, bytes) or (isinstance(cell, str) and cell.startswith("data:")):
        return bytes_of(cell)
    if not isinstance(cell, str):
        raise UnreadableError(
            f"a picture is a path, bytes, a data URI or a struct of bytes and path, not a {type(cell).__name__}"
        )
    return resolve_inside(folder, cell, where, "Move it there, or name the folder of the pictures: data.picture_folder")


def centre_crop(picture: np.ndarray, height: int, width: int) -> tuple[np.ndarray, tuple[int, int, int]]:
    """Crop the largest centred part of the target's shape, and resize it.

    Returns (height, width, 3), and where the part was: (left, top, width) in pixels of the picture.
    """
    rows, columns = picture.shape[:2]
    wide = min(columns, rows * width // height)
    high = min(rows, columns * height // width)
    top, left = (rows - high) // 2, (columns - wide) // 2
    crop = to_pil(picture[top : top + high, left : left + wide])
    resized = crop if (high, wide) == (height, width) else crop.resize((width, height), Image.Resampling.BICUBIC)
    return np.array(resized), (left, top, wide)
