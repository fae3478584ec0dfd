"""Judges of the lab: the exact detector, and the understanding side of a frozen policy."""

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from thinkdraw.lab.detector import Found, look
from thinkdraw.types import Detection, Questioner


class LabDetector:
    """The lab's exact detector as a `Detector`: every object of every picture, objects by falling score.

    It has no weights; its revision is the version of this package."""

    name = "lab-detector"
    revision = f"thinkdraw {version('thinkdraw')}"

    def detect(self, pictures: Tensor, labels: Sequence[Sequence[str]] | None = None) -> list[list[Detection]]:
        """labels: shapes to keep to, per picture; every object without."""
        found = [seen.detections for seen in self.look(pictures)]
        if labels is None:
            return found
        return [[d for d in seen if d.label in asked] for seen, asked in zip(found, labels, strict=True)]

    def look(self, pictures: Tensor) -> list[Found]:
        """As `detect`, with the background of each picture. pictures: (B, H, W, 3) uint8."""
        if pictures.dtype != torch.uint8 or pictures.ndim != 4 or pictures.shape[-1] != 3:
            raise ValueError(f"pictures of {pictures.dtype} {tuple(pictures.shape)}: expected uint8 (B, H, W, 3).")
        return [look(picture) for picture in pictures.cpu().numpy()]


class PolicyQuestioner:
    """P(yes) by the understanding side of a policy that is not trained here, as a `Questioner`.

    policy: anything with `.answer(pictures, questions)`; give a copy of its own where the policy learns, or the judge
    learns with it. max_pairs: (picture, question) pairs per call of the policy.
    """

    name = "policy"

    def __init__(self, policy: Questioner | Any, max_pairs: int = 512):
        if not isinstance(policy, Questioner):
            raise TypeError(
                f"{type(policy).__name__} has no .answer(pictures, questions): give a policy or a questioner."
            )
        self.policy: Any = policy  # those that give `log_likelihood`, too, are asked for it
        self.max_pairs = max_pairs

    @torch.no_grad()
    def answer(self, pictures: Tensor, questions: Sequence[str]) -> Tensor:
        if len(pictures) != len(questions):
            raise ValueError(f"{len(pictures)} pictures and {len(questions)} questions: each pair needs one of both.")
        if not len(questions):
            return torch.zeros(0)
        parts = [
            self.policy.answer(pictures[i : i + self.max_pairs], questions[i : i + self.max_pairs])
            for i in range(0, len(questions), self.max_pairs)
        ]
        return torch.cat(parts).float().cpu()

    @torch.no_grad()
    def log_likelihood(self, pictures: Tensor, texts: Sequence[str]) -> Tensor:
        """Of the texts as captions of the pictures, (B,) mean nats per token, by a policy that gives it."""
        return self.policy.log_likelihood(pictures, texts).float().cpu()
