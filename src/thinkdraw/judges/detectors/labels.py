"""What frozen judges that look for objects share: the revision, what they refuse, chunks, how boxes become detections."""

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

Found = list[list[Detection] | None]
"""Per picture its detections, best first; None = no verdict."""


class FrozenJudge:
    """Where a judge's checkpoint is, on which device it works, and which weights it has; its subclass sets `model`."""

    name: str
    model: Any  # a class of transformers, to whose parts torch gives the type Tensor | Module

    def __init__(self, path: Path | str, device: str):
        self.path, self.device = str(path), pick_device(device)

    @cached_property
    def revision(self) -> str:
        """Short hash of the judge's name and of all its weights, for caches and labels."""
        return digest(self.name, self.model)

    def at_once(self, count: int) -> int:
        """`count`, of things per forward pass. Raises UserError unless there is at least one."""
        if count < 1:
            raise UserError(f"judge {self.name}: {count} per forward pass is too few. Use 1 or more.")
        return count


class FrozenDetector(FrozenJudge):
    """A `Detector` whose subclass sets `model` and gives `_look`.

    A picture for which the model gives a number that is not finite has no verdict.
    """

    def __init__(self, path: Path | str, device: str, max_pictures: int):
        super().__init__(path, device)
        self.max_pictures = self.at_once(max_pictures)

    @torch.no_grad()
    def detect(self, pictures: Tensor, labels: Sequence[Sequence[str]] | None = None) -> Found:
        """pictures: (B, H, W, 3) uint8, resized as the judge was published; boxes are in their own pixels."""
        check_pictures(pictures)
        if labels is not None and len(labels) != len(pictures):
            raise ValueError(f"{len(pictures)} pictures and {len(labels)} lists of labels: each needs one of both.")
        asked = [None] * len(pictures) if labels is None else [list(dict.fromkeys(names)) for names in labels]
        found: Found = []
        for i in range(0, len(pictures), self.max_pictures):
            found += self._look(pictures[i : i + self.max_pictures].cpu(), asked[i : i + self.max_pictures])
        return found

    def _look(self, pictures: Tensor, asked: Sequence[list[str] | None]) -> Found:
        """asked: per picture the distinct labels to keep to, None = all."""
        raise NotImplementedError


class OpenVocabularyDetector(FrozenDetector):
    """A `FrozenDetector` that finds what it is asked for; its subclass gives `_find`."""

    needs_labels = True

    def _look(self, pictures: Tensor, asked: Sequence[list[str] | None]) -> Found:
        wanted = [names for names in asked if names is not None]
        if len(wanted) < len(asked):
            raise UserError(
                f"judge {self.name} finds only what it is asked for, and was given no labels. Use it where the names "
                "to look for are known, or a detector with names of its own, such as mask2former."
            )
        if blank := [name for names in wanted for name in names if not name.strip()]:
            raise UserError(f"judge {self.name} was asked to find {blank[0]!r}: give the name of a thing.")
        rows = [i for i, names in enumerate(wanted) if names]
        found: Found = [[] for _ in wanted]  # asked for nothing, nothing is found
        if rows:
            for i, seen in zip(rows, self._find(pictures[rows], [wanted[i] for i in rows]), strict=True):
                found[i] = seen
        return found

    def _find(self, pictures: Tensor, asked: Sequence[list[str]]) -> Found:
        """asked: per picture at least one label, distinct."""
        raise NotImplementedError


def check_pictures(pictures: Tensor) -> None:
    """Raises ValueError unless they are (B, H, W, 3) uint8 with at least one pixel each."""
    if pictures.dtype != torch.uint8 or pictures.ndim != 4 or pictures.shape[-1] != 3 or 0 in pictures.shape[1:]:
        raise ValueError(f"pictures of {pictures.dtype} {tuple(pictures.shape)}: expected uint8 (B, H, W, 3).")


def check_fractions(judge: str, **settings: float | None) -> None:
    """Raises UserError unless every setting is None or in 0..1."""
    for name, value in settings.items():
        if value is not None and not 0 <= value <= 1:
            raise UserError(f"judge {judge}: {name}={value} is not a fraction. Give a number from 0 to 1.")


def corners(boxes: Tensor, scale: Sequence[float]) -> Tensor:
    """(N, 4) boxes of centre and size as fractions → (x1, y1, x2, y2) × scale, which is (width, height) in pixels."""
    center, half = boxes[:, :2], boxes[:, 2:] / 2
    return torch.cat([center - half, center + half], dim=1) * torch.tensor([*scale, *scale], device=boxes.device)


def best_first(labels: list[str], boxes: Tensor, scores: Tensor) -> list[Detection]:
    """Detections by falling score, in the given order where scores are equal. boxes: (N, 4) pixels, scores: (N,)."""
    order = torch.sort(scores, descending=True, stable=True).indices.tolist()
    rows, values = boxes.tolist(), scores.tolist()
    return [Detection(labels[i], (rows[i][0], rows[i][1], rows[i][2], rows[i][3]), values[i]) for i in order]
