"""How decode steps are run: by plain calls. `fast/cuda_graphs.py` has a class of the same form that records and replays them."""

from collections.abc import Callable, Hashable, Sequence

from torch import Tensor

Step = Callable[[], None]


class Steps:
    """Runs decode steps by calling them; see `speed.decode_steps` for when a GPU records and replays them instead."""

    @property
    def records(self) -> bool:
        """Whether steps are recorded; then their sizes should take few different values."""
        return False

    def begin_phase(self) -> None:
        """Forget what was recorded: the steps that follow work on other tensors. Nothing to do for plain calls."""

    def run(self, key: Hashable, step: Step, changed: Sequence[Tensor]) -> None:
        """Run a step. It must be one that can be replayed: what differs between runs is read from tensors and written to them.

        key: everything else that the step depends on, such as numbers of rows and columns; one recording for each key.
        changed: the tensors that the step changes, to be put back for the run that records it. Log-probs have to be among
        them: by these the first replay is checked. Tensors in which a second run writes the same again, as in the KV cache,
        may be left out.
        """
        step()

    def columns(self, needed: int, capacity: int) -> int:
        """How many columns of the cache a step's attention looks at."""
        return needed
