"""Judges that answer what a test tells them."""

import math

import torch

from thinkdraw.types import Detection


class Questions:
    """P(yes) by question: a number, or a list with the answers in the order in which it is asked."""

    name = "questions-by-heart"

    def __init__(self, answers):
        self.answers = {q: list(a) if isinstance(a, list) else a for q, a in answers.items()}
        self.asked = []

    def answer(self, pictures, questions):
        assert len(pictures) == len(questions)
        self.asked += questions
        known = [self.answers[question] for question in questions]
        return torch.tensor([a.pop(0) if isinstance(a, list) else a for a in known])


class Replies:
    """A reply per request, in order, or by a function of the request."""

    name = "replies"

    def __init__(self, replies):
        self.replies, self.requests = replies, []

    def write(self, requests):
        self.requests += requests
        return [self.replies(r) for r in requests] if callable(self.replies) else list(self.replies)


class Boxes:
    """What stands in each picture, told by its first byte: {byte: [(label, box, score)] or None}."""

    name = "boxes"

    def __init__(self, scenes):
        self.scenes, self.labels = scenes, []

    def detect(self, pictures, labels=None):
        self.labels += [list(names) for names in labels]
        found = [self.scenes[int(picture.flatten()[0])] for picture in pictures]
        return [
            None if scene is None else [Detection(name, box, score) for name, box, score in scene if name in asked]
            for scene, asked in zip(found, labels)
        ]


class Brightness:
    """A picture's first byte / 100, NaN for 255."""

    name = "brightness"

    def score(self, pictures, texts):
        first = pictures.reshape(len(pictures), -1)[:, 0]
        return torch.tensor([math.nan if value == 255 else float(value) / 100 for value in first])
