"""Stand-ins for T2I-CompBench's judges and its parser, told what to say by the pictures' first byte or the words."""

import re

import torch

from thinkdraw.data.structure.noun_chunks import Parse
from thinkdraw.types import Detection

NO_VERDICT = 255
POS = {"a": "DET", "the": "DET", "red": "ADJ", "green": "ADJ", "big": "ADJ", "is": "AUX", "of": "ADP", ".": "PUNCT"}
POS |= dict.fromkeys(
    ("on", "in", "next", "to", "left", "behind", "and", "two", "three", "looking", "at", "hidden"), "X"
)


def parse(prompt):
    """Tokens by a list of words, NOUN where it is not in it; a chunk from each article to its noun."""
    words = re.findall(r"\w+|[^\w\s]", prompt.lower())
    tokens = tuple((word, POS.get(word, "NOUN")) for word in words)
    chunks = tuple(re.findall(r"\b(?:a|the) (?:red |green |big )*\w+", prompt.lower()))
    return Parse(chunks, tokens)


class Says:
    """The same P(yes) for every question about a picture: its first byte / 100; NaN for 255."""

    name = "says"

    def __init__(self):
        self.asked = []

    def answer(self, pictures, questions):
        self.asked += questions
        first = pictures.flatten(1)[:, 0].float()
        return torch.where(first == NO_VERDICT, torch.nan, first / 100)


class Finds:
    """Each label that it is asked for, side by side from left to right, overlapping by a half; None for 255."""

    name = "finds"

    def __init__(self):
        self.asked = []

    def detect(self, pictures, labels=None):
        self.asked += labels
        return [
            None
            if int(picture.flatten()[0]) == NO_VERDICT
            else [Detection(name, (8.0 * i, 0.0, 8.0 * i + 16, 16.0), 0.8) for i, name in enumerate(names)]
            for picture, names in zip(pictures, labels)
        ]


class Slopes:
    """Nearest at the top of each picture, NaN for 255."""

    name = "slopes"

    def depth(self, pictures):
        batch, height, width, _ = pictures.shape
        slope = torch.linspace(1, 0, height)[None, :, None].expand(batch, height, width).clone()
        slope[pictures.flatten(1)[:, 0] == NO_VERDICT] = torch.nan
        return slope


class Scores:
    """A picture's first byte / 100, NaN for 255; keeps the texts."""

    name = "scores"

    def __init__(self):
        self.texts = []

    def score(self, pictures, texts):
        self.texts += texts
        first = pictures.flatten(1)[:, 0].float()
        return torch.where(first == NO_VERDICT, torch.nan, first / 100)


def picture(first, side=32):
    return torch.full((side, side, 3), first, dtype=torch.uint8)
