"""Digests inside rows and JSON objects, so that a flipped bit on a disk is seen.

A digest is of the values, not of the bytes: a file that another program wrote again with the same values still matches. What was
written before there were digests has none, and is read without a check.
"""

import hashlib
import json
from pathlib import Path

from thinkdraw.errors import UserError
from thinkdraw.runtime.files import atomic_write_json
from thinkdraw.runtime.formats import parse_json, read_json_object
from thinkdraw.runtime.json_types import JsonMapping, JsonObject

SEAL = "content_sha256"
_DIGITS = 16  # hex; one damage in 2^64 goes unseen


def digest_of(value: object) -> str:
    """Return the first 64 bits of the SHA-256 of a JSON value, in hex.

    The order of an object's names does not matter.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]


def seal(value: JsonMapping) -> JsonObject:
    """Add an object's digest to it, as its last value."""
    return {**value, SEAL: digest_of(value)}


def unseal(value: JsonMapping) -> JsonObject:
    """Remove an object's digest.

    Raises ValueError if its values are not those that were sealed.
    """
    content = {name: inner for name, inner in value.items() if name != SEAL}
    if SEAL in value and value[SEAL] != digest_of(content):
        raise ValueError("its values are not those that were written, by their digest: it was edited or damaged")
    return content


def seal_line(row: JsonMapping) -> str:
    """Format a row of a JSON-lines file. Raises ValueError for NaN and infinity."""
    return json.dumps(seal(row), ensure_ascii=False, allow_nan=False) + "\n"


def unseal_line(line: str | bytes, *, to_show: bool = False) -> JsonObject:
    """Read a row that `seal_line` wrote, or an older one without a digest.

    Raises ValueError. to_show: see `parse_json`.
    """
    row = parse_json(line, to_show=to_show)
    if not isinstance(row, dict):
        raise ValueError(f"it holds a {type(row).__name__}, not an object with names")
    return unseal(row)


def write_sealed(path: Path | str, value: JsonMapping) -> None:
    """Write an object as indented JSON with its digest, all of it or nothing."""
    atomic_write_json(path, seal(value))


def read_sealed(path: Path | str, way_out: str, kind: type[UserError] = UserError) -> JsonObject:
    """Read an object that `write_sealed` wrote, or an older one without a digest.

    Raises `kind` naming the file.
    """
    value = read_json_object(path, way_out, kind)
    try:
        return unseal(value)
    except ValueError as error:
        raise kind(f"{path} cannot be used: {error}. {way_out}") from error
