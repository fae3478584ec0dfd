"""An evaluation's settings, kept beside its rows.

So two evaluations with different settings never mix in a folder.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from thinkdraw.errors import UserError
from thinkdraw.runtime.formats.sealed import read_sealed, write_sealed
from thinkdraw.runtime.json_types import JsonMapping, JsonObject
from thinkdraw.types import Prompt


def write_or_check_settings(
    path: Path, settings: JsonObject, since: JsonMapping | None = None, rows: Path | None = None
) -> None:
    """Write settings to `path`, or check that the ones there are the same.

    since: settings that an older version did not write, with their values at that time.
    rows: the file of rows made with these settings. While it has none, the settings are replaced without a check.
    Raises UserError naming a setting that differs.
    """
    new = json.loads(json.dumps(settings))
    if not path.exists() or (rows is not None and not (rows.is_file() and rows.stat().st_size)):
        write_sealed(path, new)
        return
    before = {**(since or {}), **read_sealed(path, "Choose an empty folder, or remove this one.")}
    if changed := [key for key in new if before.get(key) != new[key]]:
        key = changed[0]
        raise UserError(
            f"{path.parent} holds an evaluation with {key}={before.get(key)!r}, not {new[key]!r}. "
            "Choose another out=, or remove this folder."
        )


def sha256_of(path: Path) -> str:
    """Hash a file, or a folder's files by name and content."""
    if path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    digest = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        digest.update(f"{file.relative_to(path).as_posix()}\0".encode())
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def sha256_of_prompts(prompts: Sequence[Prompt], path: Path | None = None) -> str:
    """Hash the file that the prompts were read from, if it is known.

    Else, or for a folder, which may have other files in it, hash their ids and texts.
    """
    if path is not None and path.is_file():
        return sha256_of(path)
    return hashlib.sha256(json.dumps([[p.id, p.text] for p in prompts]).encode()).hexdigest()


def git_hash_of(path: Path) -> str:
    """Return a file's hash as `git hash-object` does, after "git:"; "" for a folder."""
    if not path.is_file():
        return ""
    data = path.read_bytes()
    return "git:" + hashlib.sha1(f"blob {len(data)}\0".encode() + data, usedforsecurity=False).hexdigest()
