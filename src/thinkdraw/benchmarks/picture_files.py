"""Pictures on the disk: which of a benchmark's are there, which are missing or not asked for, and reading them prompt by prompt."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np

from thinkdraw.benchmarks.base import Layout, PictureFile, PictureSet
from thinkdraw.errors import UserError
from thinkdraw.picture_reader import (
    DEFAULT_CONFIG,
    SUFFIXES,
    PictureReaderConfig,
    ReadPicture,
    UnreadableError,
    picture_size,
    read_with_notes,
)
from thinkdraw.types import Prompt

ABSENT = "the picture is missing"
PIXELS_AT_ONCE = 1 << 27
"""Of pictures that are read together: 400 MB."""
_OTHER_LAYOUT = "not where the layout has pictures"
_NOT_ASKED_FOR = "not asked for"
_NO_PICTURES = {".json", ".jsonl", ".txt", ".csv", ".md", ".yaml", ".html", ""}
_MAX_NAMED = 5


_Thing = TypeVar("_Thing")


@dataclass(frozen=True)
class Listing:
    """places: (prompt index, sample) → the picture, of all that were asked for and are there. missing: the others.

    extra: picture file in the folder that is not judged → why. sizes: "384×384" → how many files. notes: how the layout was
    read. reading: how the files are.
    """

    places: Mapping[tuple[int, int], PictureFile]
    missing: Sequence[tuple[int, int]]
    extra: Mapping[str, str]
    sizes: Mapping[str, int]
    layout_notes: Sequence[str] = ()
    reading: PictureReaderConfig = DEFAULT_CONFIG

    def notes(self) -> list[str]:
        """How the layout was read and what is wrong, with names, one line each."""
        notes = list(self.layout_notes)
        if self.missing:
            named = _some([f"prompt {index} picture {sample}" for index, sample in self.missing])
            notes.append(f"{len(self.missing)} pictures are missing: {named}")
        if self.extra:
            notes.append(f"{len(self.extra)} files were not judged: {by_reason(self.extra)}")
        if len(self.sizes) > 1:
            notes.append(f"pictures differ in size: {_some([f'{n} of {size}' for size, n in self.sizes.items()])}")
        return notes


@dataclass(frozen=True)
class ReadSet:
    """A prompt's pictures, why the other samples have none, and what was done to pictures on reading: sample → which."""

    pictures: PictureSet
    problems: Mapping[int, str]
    notes: Mapping[int, tuple[str, ...]]


def list_pictures(
    folder: Path,
    layout: Layout,
    indices: Iterable[int],
    pictures_per_prompt: int,
    reading: PictureReaderConfig = DEFAULT_CONFIG,
) -> Listing:
    """Compare what a layout holds with what a benchmark asks for.

    layout: all that was found. indices: of the prompts asked for; other pictures count as extra.
    """
    asked = [(i, k) for i in indices for k in range(pictures_per_prompt)]
    there = {key: layout.places[key] for key in asked if key in layout.places}
    used = {place.path.resolve() for place in there.values()}
    known = {place.path.resolve() for place in layout.places.values()}
    files = {path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES} if folder.is_dir() else set()
    files = {path for path in files if path.name != "grid.png"} | set(
        layout.left_out
    )  # which GenEval's layout may have
    extra = {
        str(path.relative_to(folder)): layout.left_out.get(path)
        or (_NOT_ASKED_FOR if path.resolve() in known else _OTHER_LAYOUT)
        for path in sorted(files)
        if path.resolve() not in used
    }
    sizes = Counter(f"{size[0]}×{size[1]}" for path in used if (size := _size_of(path, reading)))
    missing = [key for key in asked if key not in there]
    return Listing(there, missing, extra, dict(sizes.most_common()), layout.notes, reading)


def read_set(index: int, prompt: Prompt, listing: Listing, pictures_per_prompt: int) -> ReadSet:
    """Read a prompt's pictures."""
    pictures: dict[int, np.ndarray] = {}
    problems: dict[int, str] = {}
    notes: dict[int, tuple[str, ...]] = {}
    for sample in range(pictures_per_prompt):
        place = listing.places.get((index, sample))
        if place is None:
            problems[sample] = ABSENT
            continue
        try:
            pictures[sample], notes[sample] = read_place(place, listing.reading)
        except UnreadableError as error:
            problems[sample] = str(error)
    return ReadSet(PictureSet(index, prompt, tuple(pictures), tuple(pictures.values())), problems, notes)


def read_place(place: PictureFile, reading: PictureReaderConfig = DEFAULT_CONFIG) -> ReadPicture:
    """One picture. Raises UnreadableError for a file that is no picture, or no 2×2 grid."""
    read = read_with_notes(place.path, reading)
    if place.cell is None:
        return read
    height, width, _ = read.pixels.shape
    if height != width or height % 2:
        raise UnreadableError(
            f"{place.path}: {width}×{height} pixels are not a 2×2 grid of equal squares (one picture a file: --samples 1)"
        )
    side, (row, column) = height // 2, place.cell
    return read._replace(pixels=read.pixels[row * side : (row + 1) * side, column * side : (column + 1) * side].copy())


def by_reason(left_out: Mapping[str, str]) -> str:
    """Files and why each is left out, as a list in words: how many for each reason, and the first of them."""
    files: dict[str, list[str]] = {}
    for file, reason in left_out.items():
        files.setdefault(reason, []).append(file)
    return "; ".join(f"{len(names)} {reason} ({_some(names)})" for reason, names in files.items())


@dataclass
class Finder:
    """A layout while its folder is looked through. expected: how files are named."""

    expected: str
    places: dict[tuple[int, int], PictureFile] = field(default_factory=dict)
    left_out: dict[Path, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def put(self, index: int, sample: int, path: Path) -> None:
        """Take a file for a picture, unless there is one already."""
        if (index, sample) in self.places:
            self.left_out[path] = f"a second file of one picture, beside {self.places[index, sample].path.name}"
        else:
            self.places[index, sample] = PictureFile(path)

    def leave(self, path: Path) -> None:
        """Leave a file out whose name is of another form; what is neither a file nor looks like a picture is not counted."""
        if path.is_file() and path.suffix.lower() not in _NO_PICTURES:
            self.left_out[path] = f"not named as expected, {self.expected}"

    def refuse_from_one(self, numbers: Collection[int], count: int, what: str) -> None:
        """Raise UserError where prompts are numbered 1 to `count` in place of 0 to `count` − 1: each would get its neighbour's."""
        if numbers and min(numbers) == 1 and max(numbers) == count:
            raise UserError(
                f"{what} are numbered 1 to {count}, and the layout is {self.expected}, from 0: each picture would be judged by "
                "the next prompt. Rename them."
            )

    def layout(self) -> Layout:
        """What was found. Samples that are numbered from 1 in the whole folder are taken from 0, which is noted."""
        if self.places and min(sample for _, sample in self.places) == 1:
            self.places = {(index, sample - 1): place for (index, sample), place in self.places.items()}
            self.notes.append(f"the pictures of a prompt are numbered from 1, not from 0 as in {self.expected}")
        return Layout(self.places, self.expected, self.left_out, self.notes)


def parts_of(sizes: Iterable[tuple[_Thing, int]], most: int) -> Iterator[list[_Thing]]:
    """ThingPair in order, in parts that are held in memory together.

    sizes: a thing and its pixels. A part has at most `most` things and `PIXELS_AT_ONCE`, or one thing that has more.
    """
    part: list[_Thing] = []
    pixels = 0
    for thing, size in sizes:
        if part and (len(part) == most or pixels + size > PIXELS_AT_ONCE):
            yield part
            part, pixels = [], 0
        part.append(thing)
        pixels += size
    if part:
        yield part


def pixels_of(path: Path, reading: PictureReaderConfig) -> int:
    """0 for a file that cannot be read."""
    width, height = _size_of(path, reading) or (0, 0)
    return width * height


def stamp(place: PictureFile | None) -> list[int] | None:
    """Size in bytes and time of the last change: whether a row is still about this file."""
    if place is None:
        return None
    try:
        found = place.path.stat()
    except OSError:
        return None
    return [found.st_size, found.st_mtime_ns]


def _size_of(path: Path, reading: PictureReaderConfig) -> tuple[int, int] | None:
    try:
        return picture_size(path, reading)
    except UnreadableError:
        return None


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else ""
    return ", ".join(names[:_MAX_NAMED]) + more
