"""Judges look at pictures; rewards turn their answers into numbers.

There are four kinds of judge: detectors, questioners, scorers and writers.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from thinkdraw.types.rollouts import Rollouts


@dataclass(frozen=True)
class Detection:
    """One object that a detector found.

    box: (x1, y1, x2, y2) pixels, float32.
    score: 0..1.
    attributes: what the detector says about the object besides its label. The lab's detector gives color, size,
        texture.
    mask: (H, W) bool, True = object, or None.
    """

    label: str
    box: tuple[float, float, float, float]
    score: float
    attributes: dict[str, str] = field(default_factory=dict[str, str])
    mask: np.ndarray | None = field(default=None, compare=False, repr=False)


@runtime_checkable
class Detector(Protocol):
    """Finds objects in pictures.

    labels: B lists of names to look for. An open-vocabulary detector needs them and declares `needs_labels = True`.
    A detector with a fixed list of names finds all of those without labels, and only the named ones with labels.
    """

    def detect(
        self, pictures: Tensor, labels: Sequence[Sequence[str]] | None = None
    ) -> Sequence[list[Detection] | None]:
        """Detect the objects of each picture; None = no verdict on that picture.

        pictures: (B, H, W, 3) uint8.
        """
        ...


@runtime_checkable
class Questioner(Protocol):
    """Answers yes/no questions about pictures."""

    def answer(self, pictures: Tensor, questions: Sequence[str]) -> Tensor:
        """Return P(yes) (B,) for B pairs of picture and question; NaN = no verdict.

        pictures: (B, H, W, 3) uint8.
        """
        ...


@runtime_checkable
class Scorer(Protocol):
    """Rates how well pictures fit texts."""

    def score(self, pictures: Tensor, texts: Sequence[str]) -> Tensor:
        """Score B pairs of picture and text, (B,) float32; NaN = no verdict.

        pictures: (B, H, W, 3) uint8.
        """
        ...


@dataclass(frozen=True)
class Request:
    """What a `Writer` receives: an instruction, and pictures (H, W, 3) uint8."""

    text: str
    pictures: tuple[np.ndarray, ...] = field(default=(), compare=False, repr=False)


@runtime_checkable
class Writer(Protocol):
    """Answers requests in words."""

    def write(self, requests: Sequence[Request]) -> list[str | None]:
        """Write a text for each request; None = no answer.

        A failure is None and never an empty text.
        """
        ...


@dataclass(frozen=True)
class Verdicts:
    """A reward's answer for B rollouts, on the CPU.

    rewards: (B,) float32, higher is better; NaN = no verdict, or nothing to judge.
    applies: (B,) bool. False where the prompt holds nothing that this reward can judge; a NaN there is no failure.
    parts: name → (B,) float32, the terms that the reward is made of.
    part_applies: name → (B,) bool, like `applies`, for the parts that need a mask of their own.
    notes: reason → number of rows without a verdict, as far as the reward knows.
    """

    rewards: Tensor
    applies: Tensor
    parts: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    part_applies: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    notes: Counter[str] = field(default_factory=Counter[str])

    @staticmethod
    def of(
        rewards: Tensor,
        applies: Tensor | None = None,
        parts: Mapping[str, Tensor] | None = None,
        part_applies: Mapping[str, Tensor] | None = None,
        notes: Counter[str] | None = None,
    ) -> "Verdicts":
        """Make verdicts of tensors on any device and of any float type.

        applies: None = to all rows.
        """
        rewards = rewards.float().cpu()
        return Verdicts(
            rewards,
            torch.ones(len(rewards), dtype=torch.bool) if applies is None else applies.cpu(),
            {name: values.float().cpu() for name, values in (parts or {}).items()},
            {name: mask.cpu() for name, mask in (part_applies or {}).items()},
            Counter() if notes is None else notes,
        )

    def __len__(self) -> int:
        return len(self.rewards)

    @property
    def missing(self) -> Tensor:
        """(B,) bool, True = a verdict was due and did not come."""
        return self.rewards.isnan() & self.applies

    def select(self, rows: Tensor) -> "Verdicts":
        """Select rows, in the order of `rows`. The notes stay those of all rows."""
        return Verdicts(
            self.rewards[rows],
            self.applies[rows],
            {name: values[rows] for name, values in self.parts.items()},
            {name: mask[rows] for name, mask in self.part_applies.items()},
            self.notes,
        )

    @staticmethod
    def join(batches: "Sequence[Verdicts]") -> "Verdicts":
        """Join the rows of several batches by one reward, in order.

        Where a batch lacks a part that others have, its rows get NaN.
        """
        parts = dict.fromkeys(name for v in batches for name in v.parts)
        masks = dict.fromkeys(name for v in batches for name in v.part_applies)
        return Verdicts(
            torch.cat([v.rewards for v in batches]),
            torch.cat([v.applies for v in batches]),
            {n: torch.cat([v.parts.get(n, torch.full_like(v.rewards, torch.nan)) for v in batches]) for n in parts},
            {n: torch.cat([v.part_applies.get(n, v.applies & (n in v.parts)) for v in batches]) for n in masks},
            sum((v.notes for v in batches), Counter[str]()),
        )


class Judge(Protocol):
    """What a judge tells about itself, besides its answers.

    All of it is optional: see `rewards.judges_of`.

    revision: short hash of its weights and settings, None where it has none.
    elsewhere: the judge is reached over a network, so this process can sample while it waits.
    failures: reason for a missing verdict → how often, so far.
    """

    @property
    def name(self) -> str: ...

    @property
    def revision(self) -> str | None: ...

    @property
    def elsewhere(self) -> bool: ...

    @property
    def failures(self) -> Counter[str]: ...


class Reward(Protocol):
    """Gives each of B rollouts one number, as `Verdicts`.

    name: in logs and stores.
    weights: part → weight where the reward is a weighted sum of parts, so that an objective may combine them
        differently; else None.
    judges: role → the model or detector that answers. A role is a path of attributes, such as "questioner" or
        "rewards.facts.detector". It is "" where the reward is its own judge.
    revision: short hash of everything the verdicts depend on. None where the reward does not know it; then
        `rewards.revision` makes one of the judges' revisions.
    elsewhere: another process judges, so this one can sample while it waits.
    A user's reward may also be a plain function or class that returns a tensor: see `rewards.user_rewards`.
    """

    @property
    def name(self) -> str: ...

    @property
    def revision(self) -> str | None: ...

    @property
    def elsewhere(self) -> bool: ...

    @property
    def weights(self) -> Mapping[str, float] | None: ...

    @property
    def judges(self) -> Mapping[str, object]: ...

    def __call__(self, rollouts: Rollouts, /) -> Verdicts:
        """Judge the rollouts."""
        ...
