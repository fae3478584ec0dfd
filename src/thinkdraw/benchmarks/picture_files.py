"""Pictures on disk: which exist, which are missing, and reading them in batches."""

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
"""Pixels of the pictures that are held in memory together: 400 MB."""
_OTHER_LAYOUT = "not where the layout has pictures"
_NOT_ASKED_FOR = "not asked for"
_NO_PICTURES = {".json", ".jsonl", ".txt", ".csv", ".md", ".yaml", ".html", ""}
_MAX_NAMED = 5


_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Inventory:
    """A folder's pictures compared with those that an evaluation needs.

    files: (prompt index, sample) → the picture, of all that are needed and exist. missing: the rest.
    extra: picture file in the folder that is not judged → why. sizes: "384×384" → how many files.
    layout_notes: how the layout was read. reading: settings of the picture reader.
    """

    files: Mapping[tuple[int, int], PictureFile]
    missing: Sequence[tuple[int, int]]
    extra: Mapping[str, str]
    sizes: Mapping[str, int]
    layout_notes: Sequence[str] = ()
    reading: PictureReaderConfig = DEFAULT_CONFIG

    def notes(self) -> list[str]:
        """Say how the layout was read and what is wrong, one line each."""
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
class PromptPictures:
    """A prompt's pictures as they were read.

    problems: sample → why it has no picture. notes: sample → what was done to its picture on reading.
    """

    pictures: PictureSet
    problems: Mapping[int, str]
    notes: Mapping[int, tuple[str, ...]]


def list_pictures(
    folder: Path,
    layout: Layout,
    indices: Iterable[int],
    pictures_per_prompt: int,
    reading: PictureReaderConfig = DEFAULT_CONFIG,
) -> Inventory:
    """Compare what a layout holds with what an evaluation needs.

    layout: of the whole folder. indices: of the prompts to evaluate; pictures of others are extra.
    """
    keys = [(i, k) for i in indices for k in range(pictures_per_prompt)]
    pictures = {key: layout.files[key] for key in keys if key in layout.files}
    used = {file.path.resolve() for file in pictures.values()}
    known = {file.path.resolve() for file in layout.files.values()}
    files = {path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES} if folder.is_dir() else set()
    # GenEval's scripts may leave a grid.png of all samples beside them, which is no picture of a prompt.
    files = {path for path in files if path.name != "grid.png"} | set(layout.left_out)
    extra = {
        str(path.relative_to(folder)): layout.left_out.get(path)
        or (_NOT_ASKED_FOR if path.resolve() in known else _OTHER_LAYOUT)
        for path in sorted(files)
        if path.resolve() not in used
    }
    sizes = Counter(f"{size[0]}×{size[1]}" for path in used if (size := _size_of(path, reading)))
    missing = [key for key in keys if key not in pictures]
    return Inventory(pictures, missing, extra, dict(sizes.most_common()), layout.notes, reading)


def read_set(index: int, prompt: Prompt, inventory: Inventory, pictures_per_prompt: int) -> PromptPictures:
    """Read a prompt's pictures, and note which cannot be read."""
    pictures: dict[int, np.ndarray] = {}
    problems: dict[int, str] = {}
    notes: dict[int, tuple[str, ...]] = {}
    for sample in range(pictures_per_prompt):
        file = inventory.files.get((index, sample))
        if file is None:
            problems[sample] = ABSENT
            continue
        try:
            pictures[sample], notes[sample] = read_picture_file(file, inventory.reading)
        except UnreadableError as error:
            problems[sample] = str(error)
    return PromptPictures(PictureSet(index, prompt, tuple(pictures), tuple(pictures.values())), problems, notes)


def read_picture_file(file: PictureFile, reading: PictureReaderConfig = DEFAULT_CONFIG) -> ReadPicture:
    """Read one picture, or one cell of a grid.

    Raises UnreadableError for a file that is no picture, or no 2×2 grid.
    """
    read = read_with_notes(file.path, reading)
    if file.cell is None:
        return read
    height, width, _ = read.pixels.shape
    if height != width or height % 2:
        raise UnreadableError(
            f"{file.path}: {width}×{height} pixels are not a 2×2 grid of equal squares (one picture a file: samples=1)"
        )
    side, (row, column) = height // 2, file.cell
    return read._replace(pixels=read.pixels[row * side : (row + 1) * side, column * side : (column + 1) * side].copy())


def by_reason(left_out: Mapping[str, str]) -> str:
    """List files that are left out: for each reason how many, and the first of them."""
    files: dict[str, list[str]] = {}
    for file, reason in left_out.items():
        files.setdefault(reason, []).append(file)
    return "; ".join(f"{len(names)} {reason} ({_some(names)})" for reason, names in files.items())


@dataclass
class LayoutBuilder:
    """A layout in the making, while its folder is searched.

    expected: how files are named.
    """

    expected: str
    files: dict[tuple[int, int], PictureFile] = field(default_factory=dict)
    left_out: dict[Path, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, index: int, sample: int, path: Path) -> None:
        """Add a file as a picture, unless that picture has a file already."""
        if (index, sample) in self.files:
            self.left_out[path] = f"a second file of one picture, beside {self.files[index, sample].path.name}"
        else:
            self.files[index, sample] = PictureFile(path)

    def skip(self, path: Path) -> None:
        """Note a file whose name has another form.

        Folders and files that do not look like pictures are not noted.
        """
        if path.is_file() and path.suffix.lower() not in _NO_PICTURES:
            self.left_out[path] = f"not named as expected, {self.expected}"

    def refuse_numbers_from_one(self, numbers: Collection[int], count: int, what: str) -> None:
        """Raise UserError where prompts are numbered 1 to `count` instead of from 0.

        Each picture would otherwise be judged by its neighbour's prompt.
        """
        if numbers and min(numbers) == 1 and max(numbers) == count:
            raise UserError(
                f"{what} are numbered 1 to {count}, and the layout is {self.expected}, from 0: each picture would be judged by "
                "the next prompt. Rename them."
            )

    def build(self) -> Layout:
        """Make the layout; if all samples are numbered from 1, shift and note it."""
        if self.files and min(sample for _, sample in self.files) == 1:
            self.files = {(index, sample - 1): file for (index, sample), file in self.files.items()}
            self.notes.append(f"the pictures of a prompt are numbered from 1, not from 0 as in {self.expected}")
        return Layout(self.files, self.expected, self.left_out, self.notes)


def memory_batches(sizes: Iterable[tuple[_Item, int]], max_items: int) -> Iterator[list[_Item]]:
    """Yield items in order, in batches that are held in memory together.

    sizes: an item and its pixels. A batch has at most `max_items` and `PIXELS_AT_ONCE`, or one larger item alone.
    """
    batch: list[_Item] = []
    pixels = 0
    for item, size in sizes:
        if batch and (len(batch) == max_items or pixels + size > PIXELS_AT_ONCE):
            yield batch
            batch, pixels = [], 0
        batch.append(item)
        pixels += size
    if batch:
        yield batch


def pixels_of(path: Path, reading: PictureReaderConfig) -> int:
    """Count a picture's pixels; 0 for a file that cannot be read."""
    width, height = _size_of(path, reading) or (0, 0)
    return width * height


def stamp(file: PictureFile | None) -> list[int] | None:
    """Return a file's size in bytes and time of change, or None if it is missing.

    A row is still about this file if its stamp is the same.
    """
    if file is None:
        return None
    try:
        status = file.path.stat()
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]


def _size_of(path: Path, reading: PictureReaderConfig) -> tuple[int, int] | None:
    try:
        return picture_size(path, reading)
    except UnreadableError:
        return None


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else ""
    return ", ".join(names[:_MAX_NAMED]) + more
