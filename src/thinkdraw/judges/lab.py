"""Judges of the lab: the exact detector, and a policy that answers questions."""

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from thinkdraw.lab.detector import DetectorOutput, detect_objects
from thinkdraw.types import Detection, Questioner


class LabDetector:
    """Finds every object of a lab picture exactly, by falling score; has no weights.

    Its revision is the version of this package.
    """

    name = "lab-detector"
    revision = f"thinkdraw {version('thinkdraw')}"

    def detect(self, pictures: Tensor, labels: Sequence[Sequence[str]] | None = None) -> list[list[Detection]]:
        """Detect the objects of each picture. labels: shapes to keep, None = all."""
        detections = [scene.detections for scene in self.look(pictures)]
        if labels is None:
            return detections
        return [[d for d in objects if d.label in shapes] for objects, shapes in zip(detections, labels, strict=True)]

    def look(self, pictures: Tensor) -> list[DetectorOutput]:
        """Detect objects and background of each picture: (B, H, W, 3) uint8."""
        if pictures.dtype != torch.uint8 or pictures.ndim != 4 or pictures.shape[-1] != 3:
            raise ValueError(f"pictures of {pictures.dtype} {tuple(pictures.shape)}: expected uint8 (B, H, W, 3).")
        return [detect_objects(picture) for picture in pictures.cpu().numpy()]


class PolicyQuestioner:
    """Answers yes-or-no questions with a policy that sees and is not trained here.

    policy: anything with `.answer(pictures, questions)`. Give a copy where the policy learns, or its judge learns with
    it.
    max_pairs: (picture, question) pairs per call of the policy.
    """

    name = "policy"

    def __init__(self, policy: Questioner | Any, max_pairs: int = 512):
        if not isinstance(policy, Questioner):
            raise TypeError(
                f"{type(policy).__name__} has no .answer(pictures, questions): give a policy or a questioner."
            )
        self.policy: Any = policy  # `log_likelihood` below also works where the policy has that method
        self.max_pairs = max_pairs

    @torch.no_grad()
    def answer(self, pictures: Tensor, questions: Sequence[str]) -> Tensor:
        if len(pictures) != len(questions):
            raise ValueError(f"{len(pictures)} pictures and {len(questions)} questions: give one question for each.")
        if not len(questions):
            return torch.zeros(0)
        chunks = [
            self.policy.answer(pictures[i : i + self.max_pairs], questions[i : i + self.max_pairs])
            for i in range(0, len(questions), self.max_pairs)
        ]
        return torch.cat(chunks).float().cpu()

    @torch.no_grad()
    def log_likelihood(self, pictures: Tensor, texts: Sequence[str]) -> Tensor:
        """Score texts as captions of the pictures: (B,) mean nats per token.

        Needs a policy that has this method.
        """
        return self.policy.log_likelihood(pictures, texts).float().cpu()
