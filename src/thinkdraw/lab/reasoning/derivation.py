"""Working out a scene step by step, right or with one wrong step."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

Value = TypeVar("Value")


class Derivation:
    """The inferences that lead from a riddle to its scene, in words.

    slip: number of the inference that goes wrong, from 0; None makes all of them right. What follows from a wrong
    inference follows from its wrong value. rng: draws that value.
    """

    def __init__(self, slip: int | None = None, rng: np.random.Generator | None = None):
        self.slip = slip
        self.rng = rng or np.random.default_rng(0)
        self.sentences: list[str] = []

    def infer(
        self, premise: str, conclusion: str, value: Value, pool: Sequence[Value], write: Callable[[Value], str] = str
    ) -> Value:
        """Write "premise. so conclusion." and return the value.

        If this step goes wrong, the value is another one of the pool.
        premise, conclusion: with {value} where the value stands, as `write` spells it.
        """
        if len(self.sentences) == self.slip:
            others = [other for other in pool if other != value]
            value = others[self.rng.integers(len(others))]
        spelt = write(value)
        self.sentences.append(f"{premise.format(value=spelt)}. so {conclusion.format(value=spelt)}.")
        return value
