"""Writing files so that a killed process or a full disk never leaves half of one."""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from thinkdraw.errors import UserError

# Hidden siblings of what is written: .NAME.PID-TOKEN.tmp (being written) and .old (moved aside for a moment).
_LEFTOVER = re.compile(r"\.(?P<name>.+)\.(?P<pid>\d+)-(?P<token>[0-9a-f]+)\.(?P<kind>tmp|old)")
_live_tokens: set[str] = set()  # tokens of this process, which may have inherited the pid of a killed one


def write_error(path: Path, error: OSError) -> UserError:
    """The UserError for a failed write: names the path, the cause and what to do."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        way_out = "Free space on that disk or choose another folder; nothing that was there before is damaged"
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        way_out = "Choose a folder you may write to"
    elif error.errno in (errno.ENOTDIR, errno.EISDIR, errno.EEXIST):
        way_out = "A file stands where a folder is needed, or the reverse; move it or choose another path"
    else:
        way_out = "Check that disk and folder, or choose another path"
    return UserError(f"cannot write {path}: {error.strerror or error}. {way_out}.")


def _sibling(path: Path, token: str, kind: str) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}-{token}.{kind}")


def _fsync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _fsync_folder(path: Path) -> None:
    # Some network file systems and Windows refuse to open or sync a folder; the rename is atomic without it.
    with suppress(OSError):
        _fsync(path)


@contextmanager
def atomic_file(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path in the same folder; what was written there becomes `path` when the block ends.

    If the block raises, the temporary file is removed and `path` stays as it was. Missing parents are created.
    Raises UserError where the disk refuses.
    """
    path = Path(path)
    token = secrets.token_hex(4)
    temporary = _sibling(path, token, "tmp")
    _live_tokens.add(token)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _fsync(temporary)
        os.replace(temporary, path)
        _fsync_folder(path.parent)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        _live_tokens.discard(token)


def atomic_write_bytes(path: Path | str, data: bytes) -> None:
    """Write `data` to `path`, all of it or nothing."""
    with atomic_file(path) as temporary:
        temporary.write_bytes(data)


def atomic_write_text(path: Path | str, text: str) -> None:
    """Write `text` as UTF-8 to `path`, all of it or nothing."""
    atomic_write_bytes(path, text.encode("utf-8"))


def atomic_write_json(path: Path | str, value: object) -> None:
    """Write `value` as indented JSON to `path`. Raises ValueError for NaN and infinity, which JSON does not have."""
    atomic_write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


@contextmanager
def atomic_directory(path: Path | str) -> Iterator[Path]:
    """Yield an empty folder beside `path`; it takes the place of `path` when the block ends.

    A folder that stood at `path` stays complete until the new one is; if the block raises, it stays for good.
    One writer per path at a time. Raises UserError where the disk refuses or is full.
    """
    path = Path(path)
    token = secrets.token_hex(4)
    temporary = _sibling(path, token, "tmp")
    _live_tokens.add(token)
    try:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            sweep_leftovers(path.parent)
            temporary.mkdir()
        except OSError as error:
            raise write_error(path, error) from error
        try:
            yield temporary
        except OSError as error:
            # Other errors of the caller's own code, a missing input file say, are not about this folder.
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise write_error(path, error) from error
            raise
        try:
            _publish(temporary, path, aside=_sibling(path, token, "old"))
        except OSError as error:
            raise write_error(path, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        _live_tokens.discard(token)


def _publish(temporary: Path, path: Path, aside: Path) -> None:
    for folder, _, names in os.walk(temporary):
        for name in names:
            _fsync(Path(folder) / name)
        _fsync_folder(Path(folder))
    # A rename cannot replace a folder with content, so the old one steps aside first. Killed between the two renames,
    # the next writer's sweep_leftovers puts it back.
    if replaces := path.is_dir():
        path.rename(aside)
    try:
        temporary.rename(path)
    except OSError:
        if replaces:
            aside.rename(path)
        raise
    _fsync_folder(path.parent)
    shutil.rmtree(aside, ignore_errors=True)


def sweep_leftovers(folder: Path | str) -> None:
    """Remove what killed writers left in `folder`, and put back what they had moved aside; live writers are spared."""
    for entry in sorted(Path(folder).iterdir()):
        match = _LEFTOVER.fullmatch(entry.name)
        if match is None or _is_live(int(match["pid"]), match["token"]):
            continue
        original = entry.with_name(match["name"])
        if match["kind"] == "old" and not original.exists():
            entry.rename(original)
        elif entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)


def _is_live(pid: int, token: str) -> bool:
    if pid == os.getpid():
        return token in _live_tokens
    return psutil.pid_exists(pid)
