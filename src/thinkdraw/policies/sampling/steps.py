"""Running decode steps by plain calls.

`fast/cuda_graphs.py` has a class of the same interface that records and replays them.
"""

from collections.abc import Callable, Hashable, Sequence

from torch import Tensor

Step = Callable[[], None]


class Steps:
    """Runs decode steps by calling them.

    See `speed.decode_steps` for when a GPU records and replays them instead.
    """

    @property
    def records(self) -> bool:
        """Whether steps are recorded. Then their sizes should take few different values."""
        return False

    def begin_phase(self) -> None:
        """Forget recordings, because the following steps work on other tensors.

        There is nothing to do for plain calls.
        """

    def run(self, key: Hashable, step: Step, changed: Sequence[Tensor]) -> None:
        """Run a step, which must be replayable.

        That means it reads from tensors, and writes to them, everything that differs between runs.
        key: everything else that the step depends on, such as numbers of rows and columns. Each key has one
            recording.
        changed: tensors that the step changes, to be restored for the run that records it. They must include
            log-probs, by which the first replay is checked. Tensors to which a second run writes the same values,
            such as the KV cache, may be left out.
        """
        step()

    def columns(self, needed: int, capacity: int) -> int:
        """Return how many columns of the cache a step's attention reads."""
        return needed
