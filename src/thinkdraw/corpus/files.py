"""What lies in a folder or a tar file of pictures: every file is read, or counted under the reason why it is not."""

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
"""Bytes of a caption's file."""


def not_read(suffix: str, counts: Counter[str]) -> None:
    """Count a file that is neither a picture nor a caption under its suffix."""
    counts[f"{suffix} not read" if suffix else "without suffix not read"] += 1


def is_hidden(path: str) -> bool:
    """Whether a part of a path is hidden, as a Mac's ._ companions and what editors leave are."""
    parts = path.split("/")
    return any(part.startswith(".") and part not in (".", "..") for part in parts) or "__MACOSX" in parts


def files_below(folder: Path, counts: Counter[str]) -> list[Path]:
    """Files below a folder, relative to it and in order. Raises UserError for a folder that cannot be looked through."""

    def refuse(error: OSError) -> None:
        raise UserError(f"{error.filename} cannot be read: {error.strerror}. Correct its permissions, or move it away.")

    root, found = folder.resolve(), []
    for place, folders, names in os.walk(folder, onerror=refuse):
        for name in list(folders):
            if is_hidden(name) or os.path.islink(os.path.join(place, name)):
                folders.remove(name)
                counts["hidden folders left out" if is_hidden(name) else "linked folders left out"] += 1
        for name in names:
            path = Path(place, name)
            if is_hidden(name):
                counts[HIDDEN] += 1
            elif path.is_symlink() and not _leads_into(path, root):
                counts[OUTSIDE] += 1
            elif not path.is_file():
                counts["broken links and devices left out"] += 1
            else:
                found.append(path.relative_to(folder))
    for path in found:
        _refuse_odd_name(path.as_posix(), folder)
    return sorted(found)


def _refuse_odd_name(name: str, where: Path) -> None:
    """A row's id is the name, and a corpus is UTF-8."""
    if any("\ud800" <= letter <= "\udfff" for letter in name):
        raise UserError(f"{where} holds a file whose name is not UTF-8: {name!a}. Rename it.")


def _leads_into(path: Path, root: Path) -> bool:
    try:
        return path.resolve().is_relative_to(root)
    except (OSError, RuntimeError):  # a circle of links
        return False


@dataclass
class Sample:
    """Members of one name up to the first dot. places: suffix → (offset, size) in the tar; names: suffix → the member's."""

    key: str
    places: dict[str, tuple[int, int]] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)


def tar_samples(path: Path, counts: Counter[str]) -> list[Sample]:
    """The samples of a tar file in the order of their first members, wherever the others stand. Nothing is unpacked.

    Raises UserError where it is no whole, uncompressed tar.
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
                _refuse_odd_name(member.name, path)
                folder, _, name = member.name.rpartition("/")
                stem, _, extension = name.partition(".")
                key = f"{folder}/{stem}" if folder else stem
                sample = samples.setdefault(posixpath.normpath(key), Sample(key))
                suffix = "." + extension.lower()
                counts["members replaced by later ones of the same name"] += suffix in sample.places
                sample.places[suffix] = (member.offset_data, member.size)
                sample.names[suffix] = member.name
            end = tar.offset
        _refuse_more(path, end)
    except (tarfile.TarError, OSError) as error:
        raise UserError(f"{path} cannot be read as a tar file: {error}. Give an uncompressed, whole .tar.") from error
    return list(samples.values())


def texts_of(path: Path, sample: Sample) -> dict[str, tuple[str, bytes]]:
    """Suffix → (where it stands, content) of a sample's captions. Raises UserError for one that is too large."""
    found = {}
    for suffix in sample.places.keys() & set(BESIDE):
        where = f"{path}: {sample.names[suffix]}"
        offset, size = sample.places[suffix]
        if size > MAX_TEXT:
            raise UserError(f"{where} has {size} bytes, and a caption at most {MAX_TEXT}. Make it shorter.")
        with path.open("rb") as file:
            file.seek(offset)
            found[suffix] = (where, file.read(size))
    return found


def _refuse_more(path: Path, end: int) -> None:
    """A tar ends with zeros: a damaged header or a second tar behind the first would end it early, and in silence."""
    for block in _blocks(path, end):
        if block.strip(b"\0"):
            raise UserError(
                f"{path} holds more behind its end at byte {end}: it is damaged, or several were joined. Give them one by one."
            )


def _blocks(path: Path, begin: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(begin)
        while block := file.read(1 << 20):
            yield block
