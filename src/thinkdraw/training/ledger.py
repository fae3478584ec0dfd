"""What a run has cost so far, in columns that every recipe has."""

import dataclasses
from dataclasses import dataclass

from thinkdraw.runtime.checkpoint import State


@dataclass
class Ledger:
    """Totals since the run began, over all processes; columns of metrics.jsonl.

    pictures_sampled: to learn from; the rollouts of a store count too, since somebody had to sample them.
    sequences_trained: back-propagated. reference_forwards: sequences that were scored by a reference.
    judge_calls: pictures that a reward judged. tokens_sampled, tokens_trained: of thoughts and pictures.
    pictures_validated: drawn for validation; no other column counts these.
    seconds_*: by the main process's clock.
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
        """Restore the ledger of a checkpoint, or open an empty one."""
        return cls(**state["ledger"]) if state else cls()

    def add(self, **amounts: float) -> None:
        """Add amounts to columns."""
        for name, amount in amounts.items():
            before = getattr(self, name)
            setattr(self, name, before + type(before)(amount))

    def row(self) -> dict[str, int | float]:
        """Return the totals, for metrics.jsonl and for a checkpoint."""
        return dataclasses.asdict(self)


COSTS = tuple(field.name for field in dataclasses.fields(Ledger))
