"""Writes files whole or not at all, and keeps two processes from mixing theirs.

A killed process or a full disk leaves the old file or the new one, never half of one.
"""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import shutil
import socket
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from pathlib import Path
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from thinkdraw.errors import UserError
from thinkdraw.runtime.locks import is_locked, take_lock

YOUNG_S = 5.0
_WRITER = ".writer.lock"  # in a folder that one process writes to
# Hidden siblings of what is written: .NAME.TOKEN.tmp (being written), .old (moved aside for a moment), and .lock, which
# the writer holds as long as it lives. Earlier versions wrote PID-TOKEN, and no lock.
_LEFTOVER = re.compile(r"\.(?P<name>.+)\.(?:\d+-)?(?P<token>[0-9a-f]+)\.(?P<kind>tmp|old|lock)")

_P = ParamSpec("_P")
_R = TypeVar("_R")


class HasOut(Protocol):
    """A configuration that names the folder to write to."""

    @property
    def out(self) -> Path: ...


_C = TypeVar("_C", bound=HasOut)


def write_error(path: Path, error: OSError) -> UserError:
    """Make the UserError for a failed write: the path, the cause and what to do."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        way_out = "Free space on that disk or choose another folder; nothing that was there before is damaged"
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        way_out = "Choose a folder you may write to"
    elif error.errno in (errno.ENOTDIR, errno.EISDIR, errno.EEXIST):
        way_out = "A file stands where a folder is needed, or the reverse; move it or choose another path"
    else:
        way_out = "Check that disk and folder, or choose another path"
    return UserError(f"cannot write {path}: {error.strerror or error}. {way_out}.")


@contextmanager
def only_writer(folder: Path | str) -> Iterator[None]:
    """Be the only process that writes to `folder` while the block runs.

    This holds across machines that share the disk, and ends if the process dies. A missing folder is created, and removed again if it
    is still empty at the end. Leftovers of killed writers are cleaned up. Raises UserError where another process, or this one already,
    writes to the folder, and where the disk refuses.
    """
    folder = Path(folder)
    new_folders: list[Path] = []
    try:
        try:
            new_folders += [path for path in (folder, *folder.parents) if not path.exists()]
            folder.mkdir(parents=True, exist_ok=True)
            lock = take_lock(folder / _WRITER)
        except OSError as error:
            raise write_error(folder, error) from error
        if lock is None:
            raise UserError(
                f"{folder} is being written to by {_holder(folder / _WRITER)}. Wait until it has ended, stop it, or "
                "choose another folder."
            )
        try:
            if not lock.is_exclusive:
                warnings.warn(
                    f"the disk of {folder} has no locks: make sure that no second process writes to it.", stacklevel=3
                )
            with suppress(OSError):  # a full disk must not stop a run that has nothing left to write
                os.ftruncate(lock.descriptor, 0)
                os.write(lock.descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
            sweep_leftovers(folder)
            yield
        finally:
            lock.release()
    finally:
        with suppress(OSError):  # innermost first; the first folder with content ends it
            for path in new_folders:
                path.rmdir()


def has_writer(folder: Path) -> bool:
    """Tell whether a process writes to `folder`, as `only_writer` knows it.

    Where the disk has no locks, a killed writer's file looks like a writer.
    """
    path = folder / _WRITER
    try:
        # A young file may be a writer's that is about to lock it: a look at the lock must not get in its way.
        return time.time() - path.stat().st_mtime < YOUNG_S or is_locked(path)
    except OSError:
        return False


def only_writer_of_out(run: Callable[Concatenate[_C, _P], _R]) -> Callable[Concatenate[_C, _P], _R]:
    """Make a recipe the only writer of its configuration's `out`, which is created."""

    @wraps(run)
    def alone(config: _C, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        with only_writer(config.out):
            return run(config, *args, **kwargs)

    return alone


def _holder(path: Path) -> str:
    """Name the process that holds the lock at `path`, as far as the lock file says."""
    with suppress(OSError):
        if name := path.read_text(encoding="utf-8", errors="replace").strip():
            return name[:100]
    return "another process"


@contextmanager
def _siblings(path: Path) -> Iterator[tuple[Path, Path]]:
    """Yield new paths beside `path`, .tmp to write to and .old to move aside to.

    The lock that protects them is held while the block runs.
    """
    token = secrets.token_hex(4)
    temporary, aside, lock = (path.with_name(f".{path.name}.{token}.{kind}") for kind in ("tmp", "old", "lock"))
    held = None
    try:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            while held is None:  # another process's sweep may hold it for a moment
                held = take_lock(lock)
        except OSError as error:
            raise write_error(path, error) from error
        yield temporary, aside
    finally:
        with suppress(OSError):
            shutil.rmtree(temporary) if temporary.is_dir() else temporary.unlink(missing_ok=True)
        if held:
            held.release()


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
    """Yield a temporary path; what the block writes there becomes `path`.

    If the block raises, the temporary file is removed and `path` stays as it was. Missing parents are created.
    Raises UserError where the disk refuses.
    """
    path = Path(path)
    with _siblings(path) as (temporary, _):
        try:
            yield temporary
            # Content before name: after a crash, a rename may reach the disk without data that was not synced before it.
            _fsync(temporary)
            os.replace(temporary, path)
            _fsync_folder(path.parent)  # the rename itself
        except OSError as error:
            raise write_error(path, error) from error


def atomic_write_bytes(path: Path | str, data: bytes) -> None:
    """Write `data` to `path`, all of it or nothing."""
    with atomic_file(path) as temporary:
        temporary.write_bytes(data)


def atomic_write_text(path: Path | str, text: str) -> None:
    """Write `text` as UTF-8 to `path`, all of it or nothing."""
    atomic_write_bytes(path, text.encode("utf-8"))


def atomic_write_json(path: Path | str, value: object) -> None:
    """Write `value` as indented JSON to `path`.

    Raises ValueError for NaN and infinity, which JSON does not have.
    """
    atomic_write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


@contextmanager
def atomic_directory(path: Path | str) -> Iterator[Path]:
    """Yield an empty folder that takes the place of `path` when the block ends.

    A folder that stood at `path` stays complete until the new one is, and for good if the block raises.
    One writer per path at a time. Raises UserError where the disk refuses or is full.
    """
    path = Path(path)
    with _siblings(path) as (temporary, aside):
        try:
            sweep_leftovers(path.parent)
            temporary.mkdir()
        except OSError as error:
            raise write_error(path, error) from error
        try:
            yield temporary
        except OSError as error:
            # Other errors come from the caller's own code, such as a missing input file, and are not about this folder.
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise write_error(path, error) from error
            raise
        try:
            _publish(temporary, path, aside)
        except OSError as error:
            raise write_error(path, error) from error


def _publish(temporary: Path, path: Path, aside: Path) -> None:
    """Put the finished folder `temporary` at `path`, moving an older one to `aside`."""
    for folder, _, names in os.walk(temporary):
        for name in names:
            _fsync(Path(folder) / name)
        _fsync_folder(Path(folder))
    # A rename cannot replace a folder with content, so the old folder is moved aside first. If this process is killed between
    # the two renames, the next writer's sweep_leftovers moves it back.
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
    """Remove what killed writers left in `folder`, and restore what they moved aside.

    A writer is alive while its lock is held, on any machine. A temporary file without a lock file, or with a free lock, is a leftover.
    """
    for entry in sorted(Path(folder).iterdir()):
        if (match := _LEFTOVER.fullmatch(entry.name)) is None:
            continue
        try:
            lock = take_lock(entry.with_suffix(".lock"), create=False)
        except FileNotFoundError:
            _clean(entry, entry.with_name(match["name"]))
        except OSError:  # nothing is known about the writer, so its files stay
            continue
        else:
            if lock is not None and lock.is_exclusive:
                _clean(entry, entry.with_name(match["name"]))
            if lock is not None:
                lock.release(remove=lock.is_exclusive)


def _clean(entry: Path, original: Path) -> None:
    with suppress(FileNotFoundError):  # another process has cleaned it up
        if entry.suffix == ".old" and not original.exists():
            entry.rename(original)
        elif entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink()
