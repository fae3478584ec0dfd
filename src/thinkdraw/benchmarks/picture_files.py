"""Pictures on the disk: which of a benchmark's are there, which are missing or not asked for, and reading them prompt by prompt."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from thinkdraw.benchmarks.base import PictureFile, PictureSet
from thinkdraw.images import read_picture
from thinkdraw.types import Prompt

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
ABSENT = "the picture is missing"
_MAX_NAMED = 5


@dataclass(frozen=True)
class Listing:
    """places: (prompt index, sample) → the picture, of all that were asked for and are there. missing: the others.

    extra: picture files in the folder that the benchmark does not ask for. sizes: "384×384" → how many files.
    """

    places: Mapping[tuple[int, int], PictureFile]
    missing: Sequence[tuple[int, int]]
    extra: Sequence[str]
    sizes: Mapping[str, int]

    def notes(self) -> list[str]:
        """What is wrong, with names, one line each."""
        notes = []
        if self.missing:
            named = _some([f"prompt {index} picture {sample}" for index, sample in self.missing])
            notes.append(f"{len(self.missing)} pictures are missing: {named}")
        if self.extra:
            notes.append(f"{len(self.extra)} files are not asked for and were not judged: {_some(self.extra)}")
        if len(self.sizes) > 1:
            notes.append(f"pictures differ in size: {_some([f'{n} of {size}' for size, n in self.sizes.items()])}")
        return notes


def list_pictures(
    folder: Path, places: Mapping[tuple[int, int], PictureFile], indices: Iterable[int], pictures_per_prompt: int
) -> Listing:
    """Compare what a layout holds with what a benchmark asks for.

    places: all that was found in the layout. indices: of the prompts asked for; other pictures count as extra.
    """
    asked = [(i, k) for i in indices for k in range(pictures_per_prompt)]
    there = {key: places[key] for key in asked if key in places}
    used = {place.path.resolve() for place in there.values()}
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES) if folder.is_dir() else []
    extra = [
        str(path.relative_to(folder)) for path in files if path.resolve() not in used and path.name != "grid.png"
    ]  # GenEval's layout allows a grid.png beside the samples
    sizes = Counter(size for path in used if (size := _size_of(path)))
    return Listing(there, [key for key in asked if key not in places], extra, dict(sizes.most_common()))


def read_set(
    index: int, prompt: Prompt, listing: Listing, pictures_per_prompt: int
) -> tuple[PictureSet, dict[int, str]]:
    """A prompt's pictures, and why the other samples have none: sample → reason."""
    pictures: dict[int, np.ndarray] = {}
    problems: dict[int, str] = {}
    for sample in range(pictures_per_prompt):
        place = listing.places.get((index, sample))
        if place is None:
            problems[sample] = ABSENT
            continue
        try:
            pictures[sample] = read_place(place)
        except (OSError, ValueError, SyntaxError) as error:  # Pillow's decoders raise all three on damaged files
            problems[sample] = f"{place.path} cannot be read: {' '.join(str(error).split())[:120]}"
    return PictureSet(index, prompt, tuple(pictures), tuple(pictures.values())), problems


def read_place(place: PictureFile) -> np.ndarray:
    """One picture, (H, W, 3) uint8. Raises OSError or ValueError for a file that is no picture, or no 2×2 grid."""
    picture = read_picture(place.path)
    if place.cell is None:
        return picture
    height, width, _ = picture.shape
    if height != width or height % 2:
        raise ValueError(f"{width}×{height} pixels are not a 2×2 grid of equal squares")
    side, (row, column) = height // 2, place.cell
    return picture[row * side : (row + 1) * side, column * side : (column + 1) * side]


def stamp(place: PictureFile | None) -> list[int] | None:
    """Size in bytes and time of the last change: whether a row is still about this file."""
    if place is None:
        return None
    try:
        found = place.path.stat()
    except OSError:
        return None
    return [found.st_size, found.st_mtime_ns]


def _size_of(path: Path) -> str:
    try:
        with Image.open(path) as image:  # reads the header only
            return f"{image.width}×{image.height}"
    except (OSError, ValueError, UnidentifiedImageError):
        return ""


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else ""
    return ", ".join(names[:_MAX_NAMED]) + more
