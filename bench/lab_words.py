"""Draw the lab's words: each shape, colour, size, texture and background once, with its name.

    python bench/lab_words.py docs/lab_words.png

The tiles come from the lab's own renderer, four times as large as it draws them.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from thinkdraw.lab.scenes import BACKGROUNDS, COLORS, STEP, Scene, SceneObject, draw
from thinkdraw.lab.shapes import CELL, SHAPES, TEXTURES

COLUMNS = 8
MARGIN = STEP  # pixels of the scene that stay visible around the object
TILE = 4 * (CELL + 2 * MARGIN)
LABEL, GAP = 22, 6


def tile(
    shape: str, color: str = "blue", size: str = "large", texture: str = "solid", ground: str = "white"
) -> np.ndarray:
    """One object with a margin of its background, enlarged."""
    picture = draw(Scene((SceneObject(shape, color, size, texture, row=1, col=1),), ground))
    crop = picture[STEP - MARGIN : STEP + CELL + MARGIN, STEP - MARGIN : STEP + CELL + MARGIN]
    return crop.repeat(4, axis=0).repeat(4, axis=1)


def tiles() -> list[tuple[str, np.ndarray]]:
    """Name and picture of every word, in reading order."""
    looks = [("large", tile("circle")), ("small", tile("circle", size="small"))]
    looks += [(texture, tile("circle", texture=texture)) for texture in TEXTURES if texture != "solid"]
    return [
        *((shape, tile(shape)) for shape in SHAPES),
        *((color, tile("square", color)) for color in COLORS),
        *looks,
        *((ground, tile("star", "red", ground=ground)) for ground in BACKGROUNDS),
    ]


def write_sheet(file: Path) -> None:
    """Write all tiles with their names as one PNG file."""
    words = tiles()
    width, height = TILE + GAP, TILE + LABEL + GAP
    sheet = Image.new("RGB", (COLUMNS * width + GAP, -(-len(words) // COLUMNS) * height + GAP), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=15)
    for index, (name, picture) in enumerate(words):
        x, y = GAP + index % COLUMNS * width, GAP + index // COLUMNS * height
        sheet.paste(Image.fromarray(picture), (x, y))
        pen.rectangle((x, y, x + TILE - 1, y + TILE - 1), outline="#dddddd")
        pen.text((x + TILE / 2, y + TILE + LABEL / 2), name, fill="#222222", font=font, anchor="mm")
    sheet.quantize(64).save(file, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    write_sheet(parser.parse_args().file)


if __name__ == "__main__":
    main()
