"""An exact detector of lab objects, by components, silhouette overlap and colour.

It reads pixels only. A detection's score rises from 0 at an overlap (IoU with the best silhouette) of 0.55 to 1 at 0.85. So
GenEval's thresholds (0.3, and 0.9 for counting) mean overlaps of 0.64 and 0.82.
"""

from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage

from thinkdraw.lab.scenes import BACKGROUNDS, COLORS, INK
from thinkdraw.lab.shapes import CELL, SHAPES, SIZES, TEXTURES, ink, silhouette
from thinkdraw.types import Detection

WINDOW = CELL + 4
MIN_AREA = 16
MIN_IOU, FULL_IOU = 0.55, 0.85

_COLOR_NAMES = tuple(COLORS)
_PALETTE = np.array([*COLORS.values(), INK], dtype=np.float32)
_BACKGROUND_NAMES = tuple(BACKGROUNDS)
_BACKGROUNDS = np.array(list(BACKGROUNDS.values()), dtype=np.float32)
_KINDS = [(shape, size) for size in SIZES for shape in SHAPES]


def _templates() -> tuple[np.ndarray, np.ndarray, list[tuple[int, int]]]:
    """Return silhouettes, their areas, and their shifts from cell to window.

    Silhouettes: (K, W, W), the box at the window's centre. Areas: (K,) pixels. Shifts: (K,) pairs.
    """
    stack, shifts = [], []
    for shape, size in _KINDS:
        mask = silhouette(shape, size)
        rows, cols = np.nonzero(mask)
        dy = WINDOW // 2 - (rows.min() + rows.max() + 1) // 2
        dx = WINDOW // 2 - (cols.min() + cols.max() + 1) // 2
        canvas = np.zeros((WINDOW, WINDOW), dtype=bool)
        canvas[rows + dy, cols + dx] = True
        stack.append(canvas)
        shifts.append((dy, dx))
    array = np.stack(stack)
    return array, array.sum((1, 2)), shifts


_MASKS, _AREAS, _SHIFTS = _templates()
_FLAT = _MASKS.reshape(len(_KINDS), -1).astype(np.float32)


@dataclass(frozen=True)
class DetectorOutput:
    """What the detector sees in one picture."""

    background: str
    detections: list[Detection] = field(default_factory=list)


def squared_distances(pixels: np.ndarray, colors: np.ndarray) -> np.ndarray:
    """Compute (P, C) float32 distances between pixels (P, 3) and colours (C, 3).

    For whole numbers they are exact, because all sums are below 2²⁴.
    """
    return (pixels**2) @ np.ones((3, 1), np.float32) - 2 * (pixels @ colors.T) + (colors**2).sum(1)


def background_of(picture: np.ndarray) -> str:
    """Return the background colour that most pixels are close to."""
    flat = picture.reshape(-1, 3).astype(np.float32)
    distance = squared_distances(flat, _BACKGROUNDS)
    close = distance.min(1) < 40**2
    counts = np.bincount(distance.argmin(1)[close], minlength=len(_BACKGROUND_NAMES))
    return _BACKGROUND_NAMES[int(counts.argmax())]


def detect_objects(picture: np.ndarray) -> DetectorOutput:
    """Find the background and the objects of one picture, (H, W, 3) uint8.

    Objects come by falling score.
    """
    background = background_of(picture)
    backgrounds = [_BACKGROUNDS[_BACKGROUND_NAMES.index(name)] for name in ("white", background)]
    flat = picture.reshape(-1, 3).astype(np.float32)
    nearest = squared_distances(flat, np.stack([*_PALETTE, *backgrounds])).argmin(-1).reshape(picture.shape[:2])
    foreground = nearest < len(_PALETTE)
    labels = np.zeros(foreground.shape, dtype=np.int32)
    ndimage.label(foreground, structure=np.ones((3, 3), dtype=int), output=labels)
    detections = []
    for index, box in enumerate(ndimage.find_objects(labels), start=1):
        component = labels[box] == index
        if component.sum() >= MIN_AREA and max(component.shape) <= WINDOW:
            detection = _identify(component, nearest[box], box, picture.shape[:2])
            if detection is not None:
                detections.append(detection)
    return DetectorOutput(background, sorted(detections, key=lambda d: -d.score))


def _identify(
    component: np.ndarray, nearest: np.ndarray, box: tuple[slice, slice], shape: tuple[int, int]
) -> Detection | None:
    """Match one component with the silhouettes; None where the overlap is too small."""
    height, width = component.shape
    best_iou, best_kind, best_shift = 0.0, 0, (0, 0)
    for dy in (-1, 0, 1):  # a box of odd size has no exact centre, so its neighbours are tried too
        for dx in (-1, 0, 1):
            y, x = WINDOW // 2 - height // 2 + dy, WINDOW // 2 - width // 2 + dx
            if y < 0 or x < 0 or y + height > WINDOW or x + width > WINDOW:
                continue
            window = np.zeros((WINDOW, WINDOW), dtype=np.float32)
            window[y : y + height, x : x + width] = component
            both = _FLAT @ window.reshape(-1)
            iou = both / (_AREAS + window.sum() - both)
            kind = int(iou.argmax())
            if iou[kind] > best_iou:
                best_iou, best_kind, best_shift = float(iou[kind]), kind, (y, x)
    if best_iou < MIN_IOU:
        return None
    name, size = _KINDS[best_kind]
    mask = np.zeros(shape, dtype=bool)
    mask[box] = component
    top, left = box[0].start, box[1].start
    return Detection(
        label=name,
        box=(float(left), float(top), float(left + width), float(top + height)),
        score=min(1.0, (best_iou - MIN_IOU) / (FULL_IOU - MIN_IOU)),
        attributes={
            "color": _color(nearest[component]),
            "size": size,
            "texture": _texture(component, nearest, best_kind, best_shift),
        },
        mask=mask,
    )


def _color(nearest: np.ndarray) -> str:
    counts = np.bincount(nearest, minlength=len(_COLOR_NAMES))[: len(_COLOR_NAMES)]
    return _COLOR_NAMES[int(counts.argmax())]


def _texture(component: np.ndarray, nearest: np.ndarray, kind: int, shift: tuple[int, int]) -> str:
    """Return the texture whose ink pattern agrees with most of the component's pixels."""
    dark = nearest == len(_COLOR_NAMES)
    height, width = component.shape
    agreement = []
    for texture in TEXTURES:
        pattern = np.zeros((WINDOW, WINDOW), dtype=bool)
        dy, dx = _SHIFTS[kind]
        pattern[max(dy, 0) : dy + CELL, max(dx, 0) : dx + CELL] = ink(texture)[max(-dy, 0) :, max(-dx, 0) :]
        y, x = shift
        agreement.append((pattern[y : y + height, x : x + width] == dark)[component].mean())
    return TEXTURES[int(np.argmax(agreement))]
