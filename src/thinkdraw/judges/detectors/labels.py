"""The base of frozen detectors: revision, checks, chunks, boxes to detections."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from thinkdraw.errors import UserError
from thinkdraw.judges.loading import digest
from thinkdraw.runtime.device import pick_device
from thinkdraw.types import Detection

DetectionsPerPicture = list[list[Detection] | None]
"""Detections of each picture, best first; None = no verdict."""


class FrozenJudge:
    """A judge's checkpoint, device and revision; its subclass sets `model`."""

    name: str
    model: Any  # Any: torch types the parts of a transformers model as Tensor | Module

    def __init__(self, path: Path | str, device: str):
        self.path, self.device = str(path), pick_device(device)

    @cached_property
    def revision(self) -> str:
        """Short hash of the judge's name and of all its weights, for caches and labels."""
        return digest(self.name, self.model)

    def checked_count(self, count: int) -> int:
        """Return `count`, the number of things per forward pass, if it is at least 1.

        Raises UserError otherwise.
        """
        if count < 1:
            raise UserError(f"judge {self.name}: {count} per forward pass is too few. Use 1 or more.")
        return count


class FrozenDetector(FrozenJudge):
    """A `Detector` that works in chunks; a subclass gives `model`, `_detect_chunk`.

    A picture has no verdict where the model gives a number that is not finite.
    """

    def __init__(self, path: Path | str, device: str, max_pictures: int):
        super().__init__(path, device)
        self.max_pictures = self.checked_count(max_pictures)

    @torch.no_grad()
    def detect(self, pictures: Tensor, labels: Sequence[Sequence[str]] | None = None) -> DetectionsPerPicture:
        """Detect the objects of each picture: pictures (B, H, W, 3) uint8.

        Pictures are resized as the judge's authors do; boxes are in the pixels of the given pictures.
        """
        check_pictures(pictures)
        if labels is not None and len(labels) != len(pictures):
            raise ValueError(
                f"{len(pictures)} pictures and {len(labels)} lists of labels: give one list for each picture."
            )
        distinct = [None] * len(pictures) if labels is None else [list(dict.fromkeys(names)) for names in labels]
        detections: DetectionsPerPicture = []
        for i in range(0, len(pictures), self.max_pictures):
            chunk = slice(i, i + self.max_pictures)
            detections += self._detect_chunk(pictures[chunk].cpu(), distinct[chunk])
        return detections

    def _detect_chunk(self, pictures: Tensor, labels: Sequence[list[str] | None]) -> DetectionsPerPicture:
        """Detect the objects of at most `max_pictures` pictures.

        labels: for each picture the distinct labels to look for, None = all.
        """
        raise NotImplementedError


class OpenVocabularyDetector(FrozenDetector):
    """A detector that finds objects by name; its subclass gives `_detect_named`."""

    needs_labels = True

    def _detect_chunk(self, pictures: Tensor, labels: Sequence[list[str] | None]) -> DetectionsPerPicture:
        named = [names for names in labels if names is not None]
        if len(named) < len(labels):
            raise UserError(
                f"judge {self.name} finds only what it is asked for, and was given no labels. Use it where the names "
                "to look for are known, or a detector with names of its own, such as mask2former."
            )
        if blank := [name for names in named for name in names if not name.strip()]:
            raise UserError(f"judge {self.name} was asked to find {blank[0]!r}: give the name of a thing.")
        rows = [i for i, names in enumerate(named) if names]
        results: DetectionsPerPicture = [[] for _ in named]  # a picture with no label to look for has no detections
        if rows:
            detections = self._detect_named(pictures[rows], [named[i] for i in rows])
            for i, of_picture in zip(rows, detections, strict=True):
                results[i] = of_picture
        return results

    def _detect_named(self, pictures: Tensor, labels: Sequence[list[str]]) -> DetectionsPerPicture:
        """Detect the named objects. labels: for each picture one or more, distinct."""
        raise NotImplementedError


def check_pictures(pictures: Tensor) -> None:
    """Raise ValueError unless pictures are (B, H, W, 3) uint8, one pixel or more each."""
    if pictures.dtype != torch.uint8 or pictures.ndim != 4 or pictures.shape[-1] != 3 or 0 in pictures.shape[1:]:
        raise ValueError(f"pictures of {pictures.dtype} {tuple(pictures.shape)}: expected uint8 (B, H, W, 3).")


def check_fractions(judge: str, **settings: float | None) -> None:
    """Raise UserError unless every setting is None or in 0..1."""
    for name, value in settings.items():
        if value is not None and not 0 <= value <= 1:
            raise UserError(f"judge {judge}: {name}={value} is not a fraction. Give a number from 0 to 1.")


def corners(boxes: Tensor, scale: Sequence[float]) -> Tensor:
    """Convert boxes (N, 4) from centre and size to (x1, y1, x2, y2).

    boxes: fractions. scale: (width, height) in pixels, by which the corners are multiplied.
    """
    center, half = boxes[:, :2], boxes[:, 2:] / 2
    return torch.cat([center - half, center + half], dim=1) * torch.tensor([*scale, *scale], device=boxes.device)


def best_first(labels: list[str], boxes: Tensor, scores: Tensor) -> list[Detection]:
    """List detections by falling score; equal scores keep their order.

    boxes: (N, 4) pixels. scores: (N,).
    """
    order = torch.sort(scores, descending=True, stable=True).indices.tolist()
    rows, values = boxes.tolist(), scores.tolist()
    return [Detection(labels[i], (rows[i][0], rows[i][1], rows[i][2], rows[i][3]), values[i]) for i in order]
