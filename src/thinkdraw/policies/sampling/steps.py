"""How decode steps are run: one after the other, as they are."""

from collections.abc import Callable, Hashable, Sequence

from torch import Tensor

Step = Callable[[], None]


class Steps:
    """Runs decode steps. `speed.decode_steps` says whether these, or ones that a GPU records and replays."""

    @property
    def records(self) -> bool:
        """Whether steps are recorded; then their sizes should take few different values."""
        return False

    def begin_phase(self) -> None:
        """The steps that follow work on other tensors than those before."""

    def run(self, key: Hashable, step: Step, changed: Sequence[Tensor]) -> None:
        """Run a step that takes everything that differs from one run to the next out of tensors, and writes to them.

        key: of everything else that the step depends on, such as numbers of rows and columns. changed: the tensors that it
        changes, log-probs among them, but for those in which a second run would write the same again.
        """
        step()

    def columns(self, needed: int, capacity: int) -> int:
        """How many columns of the cache a step's attention looks at."""
        return needed
