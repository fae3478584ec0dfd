"""Lists the files of a folder or tar file; what is not read is counted by reason."""

import os
import posixpath
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from thinkdraw.corpus.captions import BESIDE
from thinkdraw.errors import UserError

HIDDEN, LINKS, OUTSIDE = (
    "hidden files left out",
    "links and sparse members left out",
    "links out of the folder left out",
)
MAX_TEXT = 1 << 20
"""Largest size of a caption's file, in bytes."""


def count_unread(suffix: str, counts: Counter[str]) -> None:
    """Count a file that is neither a picture nor a caption, under its suffix."""
    counts[f"{suffix} not read" if suffix else "without suffix not read"] += 1


def is_hidden(path: str) -> bool:
    """Whether a path has a hidden component, such as a Mac's ._ or editors' files."""
    parts = path.split("/")
    return any(part.startswith(".") and part not in (".", "..") for part in parts) or "__MACOSX" in parts


def files_below(folder: Path, counts: Counter[str]) -> list[Path]:
    """List the files below a folder, relative to it and in order.

    Raises UserError for a folder that cannot be read.
    """

    def refuse(error: OSError) -> None:
        raise UserError(f"{error.filename} cannot be read: {error.strerror}. Correct its permissions, or move it away.")

    root, files = folder.resolve(), []
    for parent, folders, names in os.walk(folder, onerror=refuse):
        for name in list(folders):
            if is_hidden(name) or os.path.islink(os.path.join(parent, name)):
                folders.remove(name)
                counts["hidden folders left out" if is_hidden(name) else "linked folders left out"] += 1
        for name in names:
            path = Path(parent, name)
            if is_hidden(name):
                counts[HIDDEN] += 1
            elif path.is_symlink() and not _resolves_inside(path, root):
                counts[OUTSIDE] += 1
            elif not path.is_file():
                counts["broken links and devices left out"] += 1
            else:
                files.append(path.relative_to(folder))
    for path in files:
        _check_name_is_utf8(path.as_posix(), folder)
    return sorted(files)


def _check_name_is_utf8(name: str, where: Path) -> None:
    """Raise UserError for a name that is not UTF-8: it becomes the id of a row."""
    if any("\ud800" <= letter <= "\udfff" for letter in name):
        raise UserError(f"{where} holds a file whose name is not UTF-8: {name!a}. Rename it.")


def _resolves_inside(path: Path, root: Path) -> bool:
    try:
        return path.resolve().is_relative_to(root)
    except (OSError, RuntimeError):  # a circle of links
        return False


@dataclass
class Sample:
    """The members of a tar file that share a name up to the first dot.

    extents: suffix → (offset, size) in the tar. member_names: suffix → full name of the member.
    """

    key: str
    extents: dict[str, tuple[int, int]] = field(default_factory=dict)
    member_names: dict[str, str] = field(default_factory=dict)


def tar_samples(path: Path, counts: Counter[str]) -> list[Sample]:
    """List the samples of a tar file, in the order of their first members.

    Members of a sample need not follow each other. Nothing is unpacked. Raises UserError where the file is no whole,
    uncompressed tar.
    """
    samples: dict[str, Sample] = {}
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                if member.isdir():
                    continue
                if not member.isfile() or member.issparse():
                    counts[LINKS] += 1
                    continue
                if is_hidden(member.name):
                    counts[HIDDEN] += 1
                    continue
                _check_name_is_utf8(member.name, path)
                folder, _, name = member.name.rpartition("/")
                stem, _, extension = name.partition(".")
                key = f"{folder}/{stem}" if folder else stem
                sample = samples.setdefault(posixpath.normpath(key), Sample(key))
                suffix = "." + extension.lower()
                counts["members replaced by later ones of the same name"] += suffix in sample.extents
                sample.extents[suffix] = (member.offset_data, member.size)
                sample.member_names[suffix] = member.name
            end = tar.offset
        _check_end(path, end)
    except (tarfile.TarError, OSError) as error:
        raise UserError(f"{path} cannot be read as a tar file: {error}. Give an uncompressed, whole .tar.") from error
    return list(samples.values())


def read_captions(path: Path, sample: Sample) -> dict[str, tuple[str, bytes]]:
    """Read a sample's caption files: suffix → (file in words, content).

    Raises UserError for one that is too large.
    """
    captions = {}
    for suffix in sample.extents.keys() & set(BESIDE):
        where = f"{path}: {sample.member_names[suffix]}"
        offset, size = sample.extents[suffix]
        if size > MAX_TEXT:
            raise UserError(f"{where} has {size} bytes, and a caption at most {MAX_TEXT}. Make it shorter.")
        with path.open("rb") as file:
            file.seek(offset)
            captions[suffix] = (where, file.read(size))
    return captions


def _check_end(path: Path, end: int) -> None:
    """Raise UserError if anything but zeros follows the end of a tar.

    A damaged header, or a second tar behind the first, ends the reading early and silently.
    """
    for block in _blocks(path, end):
        if block.strip(b"\0"):
            raise UserError(
                f"{path} goes on after its end at byte {end}: it is damaged, or several tar files were joined. Give them one by "
                "one."
            )


def _blocks(path: Path, begin: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(begin)
        while block := file.read(1 << 20):
            yield block
