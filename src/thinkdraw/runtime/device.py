"""Which device computes, at which precision, on how many threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache

import torch

from thinkdraw.errors import UserError


def pick_device(name: str = "auto") -> torch.device:
    """The device called `name`; "auto" takes CUDA, then Apple's MPS, then the CPU.

    Raises UserError for a name torch does not know and for a device that this machine lacks.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"device={name}: not a device name. Use auto, cpu, cuda, cuda:1 or mps.") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"device={name}: torch sees {torch.cuda.device_count()} CUDA devices. Use device=auto or cpu.")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError(f"device={name}: torch sees no Apple GPU here. Use device=auto or cpu.")
    return device


def autocast(device: torch.device | str, precision: str) -> AbstractContextManager:
    """Context in which forward passes run at `precision`: "fp32" changes nothing, "bf16" is torch's autocast."""
    if precision == "fp32":
        return nullcontext()
    if precision == "bf16":
        return torch.autocast(torch.device(device).type, dtype=torch.bfloat16)
    raise UserError(f"precision={precision}: unknown. Use fp32 or bf16.")


def matmul_dtype(device: torch.device, dtype: torch.dtype) -> torch.dtype:
    """The dtype in which weights of `dtype` are multiplied here: autocast's where that is on."""
    return torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else dtype


@cache
def warm_up_vector_math() -> None:
    """Let torch's vector functions get ready on one thread, once per process.

    Intel MKL's, which torch calls for them on a CPU, do so when first called. Where two threads did at once, one of them was
    seen (torch 2.13, one process in twenty) to compute its half of the first cosines with about 11 bits: rollouts of the
    first batch off by 7e-4 nats.
    """
    few = torch.full((4,), 0.5)  # too few for a second thread
    for function in (torch.cos, torch.sin, torch.exp, torch.log, torch.log1p, torch.tanh, torch.erf, torch.sqrt):
        function(few)


def set_threads(num_threads: int | None) -> int:
    """Let torch use `num_threads` CPU threads, None for its own choice, which follows OMP_NUM_THREADS; return them."""
    if num_threads is not None:
        if num_threads < 1:
            raise UserError(f"num_threads={num_threads}: must be at least 1, or null for torch's own choice.")
        torch.set_num_threads(num_threads)
    return torch.get_num_threads()


def cpu_has_bf16() -> bool:
    """Whether this CPU multiplies bf16 matrices natively; without, bf16 on the CPU is slower than fp32."""
    # Private names of torch.cpu, looked up softly because they come and go between releases.
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(bool(probe()) for name in probes if callable(probe := getattr(torch.cpu, name, None)))


GRAPH_CAPTURE_LOCK = threading.Lock()  # held while a CUDA graph is recorded
_own_streams: dict[tuple[torch.device, str], torch.cuda.Stream] = {}
_making_a_stream = threading.Lock()


def own_stream(device: torch.device, purpose: str) -> torch.cuda.Stream:
    """The process's one CUDA stream for a purpose, which no other purpose has.

    torch hands out the same 32 again and again; and its cache keeps memory apart for every stream that has used some.
    """
    with torch.cuda.device(device), _making_a_stream:
        device = torch.device("cuda", torch.cuda.current_device())
        taken = {key: stream for key, stream in _own_streams.items() if key[0] == device}
        while (device, purpose) not in taken:
            stream = torch.cuda.Stream(device)
            if stream not in taken.values():
                taken[device, purpose] = _own_streams[device, purpose] = stream
        return taken[device, purpose]


def free_cached_memory() -> None:
    """Give the memory that torch keeps for itself back to the GPUs; it refuses that while a CUDA graph is recorded."""
    if torch.cuda.is_available():
        with GRAPH_CAPTURE_LOCK:
            torch.cuda.empty_cache()


class SideStream:
    """On a CUDA device the work of another thread beside this one's, which would else queue behind it; elsewhere nothing."""

    def __init__(self, device: torch.device) -> None:
        self._stream = own_stream(device, "beside") if device.type == "cuda" else None

    def queued(self) -> torch.cuda.Event | torch.Event | None:
        """What this thread has asked of the device so far: an event, None where there is no stream."""
        return None if self._stream is None else torch.cuda.current_stream(self._stream.device).record_event()

    @contextmanager
    def after(self, queued: torch.cuda.Event | torch.Event | None) -> Iterator[None]:
        """Inside, work begins when `queued` is done; on leaving it is done itself."""
        if self._stream is None or queued is None:
            yield
            return
        with torch.cuda.stream(self._stream):
            self._stream.wait_event(queued)
            yield
            self._stream.synchronize()
