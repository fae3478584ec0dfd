"""The contact sheet of an evaluation: some of its pictures, to look at."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from thinkdraw.benchmarks.picture_files import Inventory, read_picture_file
from thinkdraw.images import contact_sheet, to_pil, to_png
from thinkdraw.picture_reader import UnreadableError
from thinkdraw.runtime.files import atomic_write_bytes

SHEET = "sheet.png"
SIDE = 192  # pixels of a thumbnail's side
MOST = 48
COLUMNS = 8


def write_sheet(path: Path, inventory: Inventory) -> None:
    """Write thumbnails of up to `MOST` pictures, prompt by prompt, spread over all.

    A prompt's pictures stand side by side. Pictures that cannot be read are left out; without any, so is the file.
    """
    groups: dict[int, list[tuple[int, int]]] = {}
    for index, sample in sorted(inventory.files):
        groups.setdefault(index, []).append((index, sample))
    widest = min(max(map(len, groups.values()), default=1), COLUMNS)
    prompts = list(groups.values())
    num_prompts = min(len(prompts), max(1, MOST // widest))
    thumbnails: list[np.ndarray] = []
    for place in range(num_prompts):
        row = [_thumbnail(inventory, key) for key in prompts[place * len(prompts) // num_prompts][:widest]]
        thumbnails += [picture for picture in row if picture is not None] if widest == 1 else _filled(row, widest)
    if thumbnails:
        columns = widest if widest > 1 else COLUMNS
        atomic_write_bytes(path, to_png(contact_sheet(np.stack(thumbnails), columns)))


def _filled(row: Sequence[np.ndarray | None], widest: int) -> list[np.ndarray]:
    """Fill gaps of a prompt's row with white, so that the next prompt begins a row."""
    white = np.full((SIDE, SIDE, 3), 255, dtype=np.uint8)
    return [white if picture is None else picture for picture in (*row, *[None] * (widest - len(row)))]


def _thumbnail(inventory: Inventory, key: tuple[int, int]) -> np.ndarray | None:
    """Scale a picture into a white square; a small one keeps its pixels' edges."""
    try:
        pixels, _ = read_picture_file(inventory.files[key], inventory.reading)
    except UnreadableError:
        return None
    height, width, _ = pixels.shape
    scale = SIDE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    how = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BICUBIC
    square = np.full((SIDE, SIDE, 3), 255, dtype=np.uint8)
    top, left = (SIDE - size[1]) // 2, (SIDE - size[0]) // 2
    square[top : top + size[1], left : left + size[0]] = np.array(to_pil(pixels).resize(size, how))
    return square
