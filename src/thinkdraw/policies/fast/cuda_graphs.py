"""Decode steps on an NVIDIA GPU, recorded once as CUDA graphs and replayed.

A step launches some hundred small kernels, which takes Python longer than the GPU. A graph launches them at once.
"""

import warnings
import weakref
from collections.abc import Callable, Hashable, Sequence

import torch
from torch import Tensor

from thinkdraw.policies.sampling import memory
from thinkdraw.policies.sampling.steps import Step, Steps
from thinkdraw.runtime.device import GRAPH_CAPTURE_LOCK, own_stream

TOLERANCE = 1e-2  # between a replay's log-probs and the step's own: far above rounding, far below a wrong replay
COLUMNS = 128  # a recorded step's attention reads a multiple of these columns, so that few recordings serve


class RecordedSteps(Steps):
    """Runs each kind of step once, records it, and from then on replays the recording.

    record: makes of a step a function that replays it.
    """

    def __init__(self, record: Callable[[Step], Step]) -> None:
        self.record: Callable[[Step], Step] | None = record
        self.recorded: dict[Hashable, Step] = {}

    @property
    def records(self) -> bool:
        """Whether steps are recorded; False after a step that could not be recorded."""
        return self.record is not None

    def begin_phase(self) -> None:
        """Forget recordings, because the following steps work on other tensors."""
        self.recorded.clear()

    def columns(self, needed: int, capacity: int) -> int:
        """Round the columns up, so that few recordings serve all steps."""
        return needed if self.record is None else min(capacity, -(-needed // COLUMNS) * COLUMNS)

    def run(self, key: Hashable, step: Step, changed: Sequence[Tensor]) -> None:
        """Run or replay a step; see `Steps.run`.

        The first replay must give the log-probs among `changed` that the step itself gave.
        """
        if key in self.recorded:
            self.recorded[key]()
        elif self.record is None:
            step()
        else:
            self._first(key, step, changed)

    def _first(self, key: Hashable, step: Step, changed: Sequence[Tensor]) -> None:
        """Run a step, record it, and compare the first replay with the run."""
        before = [tensor.clone() for tensor in changed]
        step()  # it also initialises libraries, which must not happen in a recording
        after = [tensor.clone() for tensor in changed]
        if not _written(before, after):  # nothing to compare a replay with
            return
        _put(changed, before)
        try:
            assert self.record is not None
            replay = self.record(step)
            replay()
        except RuntimeError as error:
            if memory.is_out_of_memory(error):
                raise
            self._give_up(f"cannot be recorded ({' '.join(str(error).split())[:200]})")
        else:
            if _agree(_written(before, after), changed):
                self.recorded[key] = replay
                return
            self._give_up("gives other numbers when it is replayed")
        _put(changed, after)

    def _give_up(self, reason: str) -> None:
        """Run steps by plain calls from now on, and warn."""
        self.record = None
        self.recorded.clear()
        warnings.warn(
            f"a decoding step {reason}: sampling goes on without CUDA graphs, as with cuda_graphs=false, and is slower.",
            stacklevel=4,
        )


Written = list[tuple[int, Tensor, Tensor]]  # index of a tensor, where in it (bool), and the values


def _written(before: Sequence[Tensor], after: Sequence[Tensor]) -> Written:
    """List the fractional numbers that a step wrote: log-probs."""
    fractional = [i for i, tensor in enumerate(after) if tensor.is_floating_point()]
    changes = [(i, after[i] != before[i]) for i in fractional]
    return [(i, where, after[i][where]) for i, where in changes if bool(where.any())]


def _agree(expected: Written, tensors: Sequence[Tensor]) -> bool:
    """Whether most of the expected numbers are in the tensors.

    Not all: rounding may turn a tie in some row.
    """
    close = [torch.isclose(tensors[i][where], v, atol=TOLERANCE, rtol=TOLERANCE) for i, where, v in expected]
    return bool(torch.cat(close).float().mean() > 0.5)


def _put(tensors: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    """Copy values into tensors."""
    for tensor, value in zip(tensors, values):
        tensor.copy_(value)


def steps_for(device: torch.device) -> RecordedSteps | None:
    """Return recorded steps, or None where nothing records steps."""
    record = recorder_for(device)
    return None if record is None else RecordedSteps(record)


def recorder_for(device: torch.device) -> Callable[[Step], Step] | None:
    """Return what records steps on a device, or None."""
    return CudaGraphs(device) if device.type == "cuda" else None


class CudaGraphs:
    """Records steps as CUDA graphs.

    The graphs share memory, because no two run at a time and none leaves anything in it. One stream records them
    all, because cuBLAS keeps working memory for every stream it has seen.
    """

    def __init__(self, device: torch.device) -> None:
        self.stream = own_stream(device, "recording")
        self._last: Callable[[], torch.cuda.CUDAGraph | None] = lambda: None

    def __call__(self, step: Step) -> Step:
        """Record a step, and return the function that replays it."""
        # torch.cuda.graph would collect garbage and empty torch's memory cache each time.
        graph, last = torch.cuda.CUDAGraph(), self._last()
        # A memory pool dies with its last graph, and torch refuses to record into a dead one. So the pool is taken from a
        # graph that is alive, if there is one.
        pool = None if last is None else last.pool()
        calling_stream = torch.cuda.current_stream(self.stream.device)
        self.stream.wait_stream(calling_stream)
        with GRAPH_CAPTURE_LOCK, torch.cuda.stream(self.stream):
            # thread_local: other threads may use the GPU meanwhile, such as a judge's.
            graph.capture_begin(pool=pool, capture_error_mode="thread_local")
            try:
                step()
            finally:
                graph.capture_end()
        calling_stream.wait_stream(self.stream)
        self._last = weakref.ref(graph)
        return graph.replay
