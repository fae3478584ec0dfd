"""Prompts, pictures and judges for tests of the evaluation flow; a judge here sees what the first pixels say."""

import numpy as np
import torch

from thinkdraw.benchmarks.base import PictureSet
from thinkdraw.types import Detection, Prompt

BROKEN = 255
"""A picture whose first pixel is this makes the judges fail."""


def picture(value, size=8):
    return np.full((size, size, 3), value, dtype=np.uint8)


def pictures_of(prompt, *values, index=0, samples=None, size=8):
    return PictureSet(
        index, prompt, tuple(samples or range(len(values))), tuple(picture(value, size) for value in values)
    )


def geneval_prompt(name="dog", index=0, tag="single_object", **clause):
    return Prompt(f"a photo of {name} {index}", f"{index:05d}", tag, ({"class": name, "count": 1, **clause},))


class PixelDetector:
    """Sees `value` objects of the label in a picture of that value; None for a broken one."""

    name, path, revision = "pixel", "org/pixel-detector", "r1"

    def __init__(self, label="dog", raises=False):
        self.label, self.raises, self.seen = label, raises, 0

    def detect(self, pictures, labels=None):
        self.seen += len(pictures)
        values = pictures[:, 0, 0, 0].tolist()
        if self.raises and BROKEN in values:
            raise RuntimeError("out of memory")
        return [None if value == BROKEN else [self._one(k) for k in range(value)] for value in values]

    def _one(self, k):
        return Detection(self.label, (10.0 * k, 0.0, 10.0 * k + 5, 5.0), 0.95, {"color": "red"})


class PixelQuestioner:
    """P(yes) = value / 100; NaN for a broken picture."""

    name, revision, hard = "pixel", "r1", False

    def answer(self, pictures, questions):
        p = pictures[:, 0, 0, 0].float() / 100
        return torch.where(pictures[:, 0, 0, 0] == BROKEN, torch.nan, p)


class PixelWords(PixelQuestioner):
    """The same as probability of first words; keeps what it was asked."""

    def __init__(self):
        self.asked = []

    def first_words(self, pictures, texts, strings):
        self.asked += list(zip(texts, strings))
        return self.answer(pictures, texts)
