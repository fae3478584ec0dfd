"""What a run has cost so far, in the same words in every recipe: columns of metrics.jsonl, and what runs are compared by."""

import dataclasses
from dataclasses import dataclass

from thinkdraw.runtime.checkpoint import State


@dataclass
class Ledger:
    """Totals since the run began, over all processes.

    pictures_validated: drawn for validation, which no other column counts.
    pictures_sampled: a store that was given counts, too: it had to be sampled. sequences_trained: back-propagated.
    reference_forwards: sequences that went through a reference. judge_calls: pictures that a reward was asked about.
    tokens_sampled, tokens_trained: of thoughts and pictures. seconds_*: by the main process's clock.
    """

    pictures_sampled: int = 0
    sequences_trained: int = 0
    reference_forwards: int = 0
    judge_calls: int = 0
    tokens_sampled: int = 0
    tokens_trained: int = 0
    pictures_validated: int = 0
    seconds_sampling: float = 0.0
    seconds_judging: float = 0.0
    seconds_learning: float = 0.0

    @classmethod
    def of(cls, state: State | None) -> "Ledger":
        """The one that a checkpoint holds, or an empty one."""
        return cls(**state["ledger"]) if state else cls()

    def add(self, **amounts: float) -> None:
        for name, amount in amounts.items():
            before = getattr(self, name)
            setattr(self, name, before + type(before)(amount))

    def row(self) -> dict[str, int | float]:
        """For metrics.jsonl, and for a checkpoint."""
        return dataclasses.asdict(self)


COSTS = tuple(field.name for field in dataclasses.fields(Ledger))
