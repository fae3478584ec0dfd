"""What an evaluation was asked to do, kept beside its rows so that two different ones never mix in a folder."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from thinkdraw.errors import UserError
from thinkdraw.runtime.formats.sealed import read_sealed, write_sealed
from thinkdraw.runtime.json_types import JsonMapping, JsonObject
from thinkdraw.types import Prompt


def keep_settings(path: Path, settings: JsonObject, since: JsonMapping | None = None, rows: Path | None = None) -> None:
    """Write settings to `path`, or check that what stands there is the same. Raises UserError naming what differs.

    since: settings that an older version did not write, and what held then. rows: the file of what is made under them; while
    it has none nobody is held to anything.
    """
    wanted = json.loads(json.dumps(settings))
    if not path.exists() or (rows is not None and not (rows.is_file() and rows.stat().st_size)):
        write_sealed(path, wanted)
        return
    before = {**(since or {}), **read_sealed(path, "Choose an empty folder, or remove this one.")}
    if changed := [key for key in wanted if before.get(key) != wanted[key]]:
        key = changed[0]
        raise UserError(
            f"{path.parent} holds an evaluation with {key}={before.get(key)!r}, not {wanted[key]!r}. "
            "Choose another --out, or remove this folder."
        )


def sha256_of(path: Path) -> str:
    """Hash of a file, or of a folder's files by name and content."""
    if path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    digest = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        digest.update(f"{file.relative_to(path).as_posix()}\0".encode())
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def sha256_of_prompts(prompts: Sequence[Prompt], path: Path | None = None) -> str:
    """Hash of the file that they were read from; without, or from a folder with other files in it, of ids and texts."""
    if path is not None and path.is_file():
        return sha256_of(path)
    return hashlib.sha256(json.dumps([[p.id, p.text] for p in prompts]).encode()).hexdigest()


def git_hash_of(path: Path) -> str:
    """A file's hash as `git hash-object` gives it, behind "git:"; "" for a folder."""
    if not path.is_file():
        return ""
    data = path.read_bytes()
    return "git:" + hashlib.sha1(f"blob {len(data)}\0".encode() + data, usedforsecurity=False).hexdigest()
