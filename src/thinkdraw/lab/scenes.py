"""A scene of the lab world: up to five objects on a lattice, and how it is drawn.

Objects lie on a 7×7 lattice of 8 pixels, so that each covers 2×2 image tokens exactly. They are at least 24 pixels apart on one
axis.

Coloured backgrounds are tiles with thin white joints, because a VQ model with one channel per GroupNorm group, as in a small Janus,
cannot see a plain colour over the whole picture: GroupNorm removes each channel's spatial mean.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from thinkdraw.lab.shapes import CELL, SHAPES, SIZES, TEXTURES, ink, silhouette

PIXELS = 64
LATTICE = 7
STEP = 8
MIN_GAP = 3  # lattice steps between two objects on at least one axis

COLORS: dict[str, tuple[int, int, int]] = {
    "red": (220, 30, 35),
    "orange": (250, 140, 20),
    "yellow": (250, 220, 40),
    "green": (40, 160, 60),
    "blue": (35, 80, 215),
    "purple": (130, 40, 170),
    "pink": (250, 130, 195),
    "brown": (125, 75, 35),
}
BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "white": (255, 255, 255),
    "gray": (200, 200, 200),
    "sky": (185, 230, 250),
    "cream": (250, 238, 205),
}
INK = (25, 25, 30)
WHITE = BACKGROUNDS["white"]


@dataclass(frozen=True)
class SceneObject:
    """One object: its attributes and its lattice place.

    row, col: 0..6 from the top left.
    """

    shape: str
    color: str
    size: str
    texture: str
    row: int
    col: int

    @property
    def center(self) -> tuple[int, int]:
        """The centre (x, y) in pixels."""
        return self.col * STEP + CELL // 2, self.row * STEP + CELL // 2


@dataclass(frozen=True)
class Scene:
    objects: tuple[SceneObject, ...]
    background: str = "white"


def draw(scene: Scene) -> np.ndarray:
    """Draw a scene as a picture, (64, 64, 3) uint8."""
    picture = np.empty((PIXELS, PIXELS, 3), dtype=np.uint8)
    picture[:] = BACKGROUNDS[scene.background]
    picture[::STEP] = WHITE
    picture[:, ::STEP] = WHITE
    for thing in scene.objects:
        y, x = thing.row * STEP, thing.col * STEP
        cell = picture[y : y + CELL, x : x + CELL]
        mask = silhouette(thing.shape, thing.size)
        cell[mask] = COLORS[thing.color]
        cell[mask & ink(thing.texture)] = INK
    return picture


def is_far_enough(place: tuple[int, int], others: Sequence[tuple[int, int]], gap: int = MIN_GAP) -> bool:
    return all(max(abs(place[0] - r), abs(place[1] - c)) >= gap for r, c in others)


def random_places(count: int, rng: np.random.Generator, gap: int = MIN_GAP) -> list[tuple[int, int]]:
    """Draw `count` lattice places (row, col) at least `gap` steps apart.

    Starts again when a draw leaves no room.
    """
    while True:
        places: list[tuple[int, int]] = []
        for index in rng.permutation(LATTICE * LATTICE):
            place = (int(index) // LATTICE, int(index) % LATTICE)
            if is_far_enough(place, places, gap):
                places.append(place)
                if len(places) == count:
                    return places


def random_attributes(rng: np.random.Generator) -> dict[str, str]:
    """Draw shape, colour, size and texture; half of all objects are solid."""
    return {
        "shape": SHAPES[rng.integers(len(SHAPES))],
        "color": tuple(COLORS)[rng.integers(len(COLORS))],
        "size": SIZES[rng.integers(len(SIZES))],
        "texture": TEXTURES[max(0, int(rng.integers(4)) - 1)],  # 0 and 1 of 0..3 are solid
    }


def random_background(rng: np.random.Generator) -> str:
    """Draw a background; half of all scenes are white."""
    names = tuple(BACKGROUNDS)
    return "white" if rng.random() < 0.5 else names[rng.integers(1, len(names))]


def random_scene(count: int, rng: np.random.Generator, gap: int = MIN_GAP) -> Scene:
    places = random_places(count, rng, gap)
    objects = tuple(SceneObject(**random_attributes(rng), row=r, col=c) for r, c in places)
    return Scene(objects, random_background(rng))
