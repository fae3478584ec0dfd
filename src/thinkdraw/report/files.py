"""Reads files that may be missing or damaged: they become notes, never a crash."""

import base64
import io
import json
import math
from collections.abc import Mapping
from pathlib import Path

from PIL import Image

from thinkdraw.errors import UserError
from thinkdraw.images import to_pil
from thinkdraw.picture_reader import UnreadableError, picture_size, read_picture
from thinkdraw.runtime.formats.sealed import unseal_line
from thinkdraw.runtime.json_types import JsonMapping, JsonObject
from thinkdraw.runtime.tracking import MetricsLog

MAX_SIDE = 128
"""Longer side of an embedded picture, pixels. Larger pictures are scaled down and quantised to keep the page small."""

_PNG = b"\x89PNG\r\n\x1a\n"


def number(value: object) -> float:
    """Return a float; NaN for None, text and anything else that is no finite number."""
    if isinstance(value, bool | int | float):
        return float(value) if math.isfinite(value) else math.nan
    return math.nan


def text(value: object) -> str:
    return "" if value is None else str(value)


def read_json(path: Path, notes: list[str]) -> JsonObject:
    """Read the object in a JSON file; {} if it is missing, with a note if damaged."""
    if not path.is_file():
        return {}
    try:
        return unseal_line(path.read_bytes(), to_show=True)
    except (OSError, ValueError):
        notes.append(f"{path.name} in {path.parent.name}/ is not JSON or was changed, and was left out.")
        return {}


def read_rows(path: Path, notes: list[str]) -> list[JsonObject]:
    """Read the objects in a JSON-lines file; none, with a note, if it is damaged."""
    try:
        return MetricsLog.read(path, to_show=True)
    except UserError:
        notes.append(f"{path.name} in {path.parent.name}/ is damaged and was left out.")
        return []


def mapping(value: object) -> JsonMapping:
    """Return a dict, also from its JSON text; {} for anything else."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return {}
    return value if isinstance(value, Mapping) else {}


def data_uri(png: bytes | None) -> str | None:
    """Turn a PNG file's bytes into a data URI of at most MAX_SIDE pixels.

    None if they are not a PNG.
    """
    if not isinstance(png, bytes) or not png.startswith(_PNG):
        return None
    try:
        if max(picture_size(png)) > MAX_SIDE:
            image = to_pil(read_picture(png))
            image.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
            buffer = io.BytesIO()
            image.quantize(128).save(buffer, format="PNG", optimize=True)
            png = buffer.getvalue()
    except UnreadableError:
        return None
    return "data:image/png;base64," + base64.b64encode(png).decode()
