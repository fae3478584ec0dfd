"""Which device computes, at which precision, on how many threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import Literal

import torch

from thinkdraw.errors import UserError


def pick_device(name: str = "auto") -> torch.device:
    """Return the device called `name`; "auto" takes CUDA, then MPS, then the CPU.

    Raises UserError for a name that torch does not know and for a device that this machine lacks.
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
    """Return the context for forward passes at `precision`.

    "fp32" changes nothing, "bf16" is torch's autocast.
    """
    if precision == "fp32":
        return nullcontext()
    if precision == "bf16":
        return torch.autocast(torch.device(device).type, dtype=torch.bfloat16)
    raise UserError(f"precision={precision}: unknown. Use fp32 or bf16.")


def matmul_dtype(device: torch.device, dtype: torch.dtype) -> torch.dtype:
    """Return the dtype in which weights of `dtype` are multiplied on `device`.

    It is autocast's where autocast is on.
    """
    return torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else dtype


@cache
def warm_up_vector_math() -> None:
    """Initialise torch's vector functions on one thread, once per process.

    On a CPU torch calls Intel MKL's vector functions, which initialise at their first call. Two threads that call first at the same
    time race: with torch 2.13 one process in twenty computed half of its first cosines with about 11 bits, and the log-probs of the
    first batch were off by 7e-4 nats.
    """
    values = torch.full((4,), 0.5)  # too few for a second thread
    for function in (torch.cos, torch.sin, torch.exp, torch.log, torch.log1p, torch.tanh, torch.erf, torch.sqrt):
        function(values)


def set_threads(num_threads: int | None) -> int:
    """Let torch use `num_threads` CPU threads, and return how many it uses.

    None leaves torch's own choice, which follows OMP_NUM_THREADS.
    """
    if num_threads is not None:
        if num_threads < 1:
            raise UserError(f"num_threads={num_threads}: must be at least 1, or null for torch's own choice.")
        torch.set_num_threads(num_threads)
    return torch.get_num_threads()


def cpu_has_bf16() -> bool:
    """Tell whether this CPU multiplies bf16 matrices natively.

    Where it does not, bf16 on the CPU is slower than fp32.
    """
    # Private names of torch.cpu, looked up softly because they come and go between releases.
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(bool(probe()) for name in probes if callable(probe := getattr(torch.cpu, name, None)))


GRAPH_CAPTURE_LOCK = threading.Lock()  # held while a CUDA graph is recorded
_own_streams: dict[tuple[torch.device, str], torch.cuda.Stream] = {}
_STREAMS_LOCK = threading.Lock()


def own_stream(device: torch.device, purpose: str) -> torch.cuda.Stream:
    """Return the process's one CUDA stream for a purpose; no other purpose shares it.

    torch hands out the same 32 streams again and again, so two purposes could get the same one. Its memory cache keeps blocks apart
    by stream, so more streams than needed would cost memory.
    """
    with torch.cuda.device(device), _STREAMS_LOCK:
        device = torch.device("cuda", torch.cuda.current_device())
        taken = {key: stream for key, stream in _own_streams.items() if key[0] == device}
        while (device, purpose) not in taken:
            stream = torch.cuda.Stream(device)
            if stream not in taken.values():
                taken[device, purpose] = _own_streams[device, purpose] = stream
        return taken[device, purpose]


def free_cached_memory() -> None:
    """Return torch's cached memory to the GPUs.

    torch refuses that while a CUDA graph is recorded, so this waits for the recording to end.
    """
    if torch.cuda.is_available():
        with GRAPH_CAPTURE_LOCK:
            torch.cuda.empty_cache()


class SideStream:
    """Runs another thread's GPU work beside this thread's, instead of behind it.

    On devices other than CUDA it does nothing.
    """

    def __init__(self, device: torch.device) -> None:
        self._stream = own_stream(device, "beside") if device.type == "cuda" else None

    def record_event(self) -> torch.cuda.Event | torch.Event | None:
        """Record an event after this thread's work so far; None without a stream."""
        return None if self._stream is None else torch.cuda.current_stream(self._stream.device).record_event()

    @contextmanager
    def after(self, event: torch.cuda.Event | torch.Event | None) -> Iterator[None]:
        """Start the block's work when `event` is done, and finish it before leaving."""
        if self._stream is None or event is None:
            yield
            return
        with torch.cuda.stream(self._stream):
            self._stream.wait_event(event)
            yield
            self._stream.synchronize()


def stored_dtype(path: str) -> Literal["fp32", "bf16"]:
    """Read the dtype of a checkpoint's files: bf16 for half precisions."""
    from transformers import PreTrainedConfig

    try:
        config = PreTrainedConfig.get_config_dict(path)[0]
    except (OSError, ValueError):  # what is wrong with it is said when it is loaded
        return "fp32"
    stored = str(config.get("dtype") or config.get("torch_dtype") or "")
    return "bf16" if stored.removeprefix("torch.") in ("bfloat16", "float16") else "fp32"
