"""Judges, which look at pictures (detectors, questioners, scorers, writers), and rewards, which make numbers of their answers."""

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
    """One found object.

    box: (x1, y1, x2, y2) pixels, float32. score: 0..1. attributes: what else the detector says of it (the lab's: color,
    size, texture). mask: (H, W) bool or None.
    """

    label: str
    box: tuple[float, float, float, float]
    score: float
    attributes: dict[str, str] = field(default_factory=dict[str, str])
    mask: np.ndarray | None = field(default=None, compare=False, repr=False)


@runtime_checkable
class Detector(Protocol):
    """Finds objects: pictures (B, H, W, 3) uint8 → per picture a list of detections, or None = no verdict.

    labels: B lists of names to look for. A detector with an open vocabulary needs them, and says so by
    `needs_labels = True`. One with a fixed list of names finds all of these without, and only the named ones with them.
    """

    def detect(
        self, pictures: Tensor, labels: Sequence[Sequence[str]] | None = None
    ) -> Sequence[list[Detection] | None]: ...


@runtime_checkable
class Questioner(Protocol):
    """P(yes) in 0..1 for (picture, question) pairs; NaN = no verdict. pictures (B, H, W, 3) uint8, B questions → (B,)."""

    def answer(self, pictures: Tensor, questions: Sequence[str]) -> Tensor: ...


@runtime_checkable
class Scorer(Protocol):
    """A number for (picture, text) pairs; NaN = no verdict. → (B,) float32."""

    def score(self, pictures: Tensor, texts: Sequence[str]) -> Tensor: ...


@dataclass(frozen=True)
class Request:
    """What a `Writer` is asked: an instruction, and the pictures that it is about, each (H, W, 3) uint8."""

    text: str
    pictures: tuple[np.ndarray, ...] = field(default=(), compare=False, repr=False)


@runtime_checkable
class Writer(Protocol):
    """Answers in words: a text for each request; None = no answer (a failure, never an empty text)."""

    def write(self, requests: Sequence[Request]) -> list[str | None]: ...


@dataclass(frozen=True)
class Verdicts:
    """What a reward says of B rollouts. All tensors are on the CPU.

    rewards: (B,) float32, higher is better; NaN = no verdict, or nothing to judge.
    applies: (B,) bool, False where the prompt has nothing for this reward to judge: there NaN is no failure.
    parts: name → (B,) float32, what the reward is made of. part_applies: the same as `applies` for a part, where it has one.
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
        """Make verdicts of tensors on any device and of any float type. applies: None = to all rows."""
        rewards = rewards.float().cpu()
        return Verdicts(
            rewards,
            torch.ones(len(rewards), dtype=torch.bool) if applies is None else applies.cpu(),
            {name: values.float().cpu() for name, values in (parts or {}).items()},
            {name: where.cpu() for name, where in (part_applies or {}).items()},
            Counter() if notes is None else notes,
        )

    def __len__(self) -> int:
        return len(self.rewards)

    @property
    def missing(self) -> Tensor:
        """(B,) bool: a verdict was due and none came."""
        return self.rewards.isnan() & self.applies

    def select(self, rows: Tensor) -> "Verdicts":
        """Some rows, in the given order; the notes stay those of all."""
        return Verdicts(
            self.rewards[rows],
            self.applies[rows],
            {name: values[rows] for name, values in self.parts.items()},
            {name: where[rows] for name, where in self.part_applies.items()},
            self.notes,
        )

    @staticmethod
    def join(batches: "Sequence[Verdicts]") -> "Verdicts":
        """The rows of several batches by one reward, one batch after the other; a part that a batch lacks is NaN in its rows."""
        parts = dict.fromkeys(name for v in batches for name in v.parts)
        where = dict.fromkeys(name for v in batches for name in v.part_applies)
        return Verdicts(
            torch.cat([v.rewards for v in batches]),
            torch.cat([v.applies for v in batches]),
            {n: torch.cat([v.parts.get(n, torch.full_like(v.rewards, torch.nan)) for v in batches]) for n in parts},
            {n: torch.cat([v.part_applies.get(n, v.applies & (n in v.parts)) for v in batches]) for n in where},
            sum((v.notes for v in batches), Counter[str]()),
        )


class Judge(Protocol):
    """What a judge says of itself, beside what it answers. All of it is optional, see `rewards.judges_of`.

    revision: short hash of its weights and settings, None where it has none. elsewhere: it is asked over a network, so
    that this process can sample while it waits. failures: why it gave no verdict so far → how often.
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
    """Judges rollouts: rewards of B rollouts as `Verdicts`, one number each.

    name: in logs and stores. weights: part → weight, if the reward is a weighted sum of parts, which the objective may
        combine otherwise; else None.
    judges: role → the model or detector that is asked. The role is a path of attributes, such as "questioner" or
        "rewards.facts.detector", and "" where the reward is its own judge.
    revision: short hash of all that the verdicts depend on, if the reward knows it, as one on a server does; with None it
        is made of the judges' (`rewards.revision`).
    elsewhere: another process judges, so that this one can sample while it waits.
    A user's own reward may be a plain function or class that returns a tensor: see `rewards.user_rewards`.
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

    def __call__(self, rollouts: Rollouts, /) -> Verdicts: ...
