"""Decode steps on an NVIDIA GPU, recorded once as CUDA graphs and replayed.

A step launches some hundred small kernels, which takes the interpreter longer than the GPU; a graph launches them at once.
"""

import warnings
import weakref
from collections.abc import Callable, Hashable, Sequence

import torch
from torch import Tensor

from thinkdraw.policies.sampling import memory
from thinkdraw.policies.sampling.steps import Step, Steps
from thinkdraw.runtime.device import GRAPH_CAPTURE_LOCK, own_stream

TOLERANCE = 1e-2  # of a replay's numbers against the step's own: far above rounding, far below what a wrong one gives
COLUMNS = 128  # of the cache that a recorded step's attention looks at: a multiple of it, so that few records serve


class RecordedSteps(Steps):
    """Runs each kind of step as it is once, then records it, and from then on replays the record.

    record: from a step to what replays it.
    """

    def __init__(self, record: Callable[[Step], Step]) -> None:
        self.record: Callable[[Step], Step] | None = record
        self.recorded: dict[Hashable, Step] = {}

    @property
    def records(self) -> bool:
        """False once a step could not be recorded."""
        return self.record is not None

    def begin_phase(self) -> None:
        self.recorded.clear()

    def columns(self, needed: int, capacity: int) -> int:
        return needed if self.record is None else min(capacity, -(-needed // COLUMNS) * COLUMNS)

    def run(self, key: Hashable, step: Step, changed: Sequence[Tensor]) -> None:
        """See `Steps.run`. The first replay must give the log-probs among `changed` that the step itself gave."""
        if key in self.recorded:
            self.recorded[key]()
        elif self.record is None:
            step()
        else:
            self._first(key, step, changed)

    def _first(self, key: Hashable, step: Step, changed: Sequence[Tensor]) -> None:
        before = [tensor.clone() for tensor in changed]
        step()  # also makes libraries ready, which may not happen in a recording
        wanted = [tensor.clone() for tensor in changed]
        if not _written(before, wanted):  # nothing to compare a replay with
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
            if _agree(_written(before, wanted), changed):
                self.recorded[key] = replay
                return
            self._give_up("gives other numbers when it is replayed")
        _put(changed, wanted)

    def _give_up(self, reason: str) -> None:
        self.record = None
        self.recorded.clear()
        warnings.warn(
            f"a decoding step {reason}: sampling goes on without CUDA graphs, as with cuda_graphs=false, and slower.",
            stacklevel=4,
        )


Written = list[tuple[int, Tensor, Tensor]]  # which tensor, where in it (bool), and what


def _written(before: Sequence[Tensor], after: Sequence[Tensor]) -> Written:
    """The fractional numbers that a step wrote: log-probs."""
    fractional = [i for i, one in enumerate(after) if one.is_floating_point()]
    changes = [(i, after[i] != before[i], after[i]) for i in fractional]
    return [(i, where, after[where]) for i, where, after in changes if bool(where.any())]


def _agree(wanted: Written, found: Sequence[Tensor]) -> bool:
    """Whether most of them are found again: rounding may turn a tie in one row or another."""
    close = [torch.isclose(found[i][where], one, atol=TOLERANCE, rtol=TOLERANCE) for i, where, one in wanted]
    return bool(torch.cat(close).float().mean() > 0.5)


def _put(tensors: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    for tensor, value in zip(tensors, values):
        tensor.copy_(value)


def steps_for(device: torch.device) -> RecordedSteps | None:
    """None where nothing records steps."""
    record = recorder_for(device)
    return None if record is None else RecordedSteps(record)


def recorder_for(device: torch.device) -> Callable[[Step], Step] | None:
    """What records steps there; None where nothing does."""
    return CudaGraphs(device) if device.type == "cuda" else None


class CudaGraphs:
    """Records steps as CUDA graphs. They share memory, since no two run at a time and none leaves anything there.

    One stream records them all: cuBLAS keeps working memory for every stream that it has seen.
    """

    def __init__(self, device: torch.device) -> None:
        self.stream = own_stream(device, "recording")
        self._last: Callable[[], torch.cuda.CUDAGraph | None] = lambda: None

    def __call__(self, step: Step) -> Step:
        # Not torch.cuda.graph, which collects garbage and empties torch's cache each time.
        graph, last = torch.cuda.CUDAGraph(), self._last()
        # A pool ends with the last of its graphs, and torch refuses to record into it after that: ask one that is alive.
        pool = None if last is None else last.pool()
        asked_from = torch.cuda.current_stream(self.stream.device)
        self.stream.wait_stream(asked_from)
        with GRAPH_CAPTURE_LOCK, torch.cuda.stream(self.stream):
            # Only what this thread does must not disturb the recording: a judge may be at work in another.
            graph.capture_begin(pool=pool, capture_error_mode="thread_local")
            try:
                step()
            finally:
                graph.capture_end()
        asked_from.wait_stream(self.stream)
        self._last = weakref.ref(graph)
        return graph.replay
