"""NVIDIA GPUs that are not there: tensors say cuda and keep their numbers on the CPU, under CUDA's and torch's rules.

* Tensors of two devices do not mix, GPUs among themselves included.
* A stream is one of 32 that torch hands out in turn; what a thread asks of a stream that records goes into that record.
* While a stream records nothing may be looked at, uploaded from pageable memory, or waited for on it, and torch's cache
  may not be emptied. Operations are noted then, done again on the same memory by each replay, and undone.
* A pool of graphs ends with its last graph, and may not be recorded into after that; pools are of one GPU.

Bytes of tensors are counted, alive and at the worst moment; so are bytes that kernels read and write. Not emulated: time,
streams that run at once, memory that runs out, several processes. Install it before anything has asked torch for CUDA.
"""

import contextlib
import ctypes
import itertools
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch._dynamo  # which looks at all of torch.cuda when it is first needed
import torch.nn.functional as F
from torch.cuda.amp import common
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

NUM_GPUS, STREAMS_IN_POOL = 2, 32
INDEXES = {"index", "index_put_", "index_put", "_index_put_impl_", "_unsafe_index"}
COPIES = {"_to_copy", "copy_"}
LOOKS = {"_local_scalar_dense", "nonzero", "equal", "is_nonzero", "masked_select", "unique_dim", "_unique2", "bincount"}
# Of no cost: views, and what only makes room.
FREE = {"view", "t", "transpose", "slice", "unsqueeze", "expand", "split", "split_with_sizes", "select", "_unsafe_view",
        "alias", "detach", "permute", "squeeze", "lift_fresh", "as_strided", "detach_", "unbind", "_reshape_alias", "empty",
        "empty_like", "new_empty", "empty_strided", "new_empty_strided", "diagonal", "unfold"}  # fmt: skip
PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "convolution", "attention")

alive: Counter[int] = Counter()  # bytes on each GPU
highest: Counter[int] = Counter()
moved: Counter[str] = Counter()  # operation → bytes read and written, products apart
_place = threading.local()  # each thread's current streams
_recording: dict["Stream", "Graph"] = {}
_pools: Counter[tuple[int, Any]] = Counter()  # (GPU, handle) → how many hold it
_ended: set[tuple[int, Any]] = set()
_handles = itertools.count(1)
_gpu: Any = None  # the compiled hooks, which know each thread's current GPU


class OnGpu(torch.Tensor):
    """elem: its numbers, on the CPU."""

    elem: torch.Tensor

    @staticmethod
    def __new__(cls, elem: torch.Tensor, index: int) -> "OnGpu":
        made = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, elem.size(), strides=elem.stride(), storage_offset=elem.storage_offset(), dtype=elem.dtype,
            device=torch.device("cuda", index),
        )  # fmt: skip
        made.elem = elem
        _count_memory(elem.untyped_storage(), index)
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return run(function, args, kwargs or {})

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"OnGpu({tuple(self.shape)}, {self.dtype}, {self.device})"

    def data_ptr(self) -> int:
        return self.elem.data_ptr()

    def storage(self) -> Any:
        return self.elem.storage()

    def untyped_storage(self) -> Any:
        return self.elem.untyped_storage()

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def numpy(self, *_: Any, **__: Any) -> Any:
        raise TypeError(f"can't convert {self.device} device type tensor to numpy. Use Tensor.cpu() first.")

    __array__ = numpy

    def __deepcopy__(self, memo: dict) -> "OnGpu":
        if id(self) not in memo:
            with torch.no_grad():
                copied: Any = self.detach().clone()
            is_parameter = getattr(self, "_is_param", False)
            memo[id(self)] = torch.nn.Parameter(copied, self.requires_grad) if is_parameter else copied
        return memo[id(self)]


class Devices(TorchDispatchMode):
    """For what no tensor of a GPU takes part in yet: those that are made or moved there."""

    def __torch_dispatch__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return run(function, args, kwargs or {})


_storages: set[int] = set()


def _count_memory(storage: Any, index: int) -> None:
    key, size = storage._cdata, storage.nbytes()
    if key in _storages:
        return
    _storages.add(key)
    alive[index] += size
    highest[index] = max(highest[index], alive[index])

    def gone() -> None:
        _storages.discard(key)
        alive[index] -= size

    weakref.finalize(storage, gone)


def _index_of(device: Any) -> int | None:
    """Which GPU; None for the CPU and other devices."""
    device = torch.device(device)
    return (device.index if device.index is not None else _gpu.current_device()) if device.type == "cuda" else None


def run(function: Any, args: tuple, kwargs: dict) -> Any:
    """Do an operation on the CPU, and give its results to the device that they would be on."""
    name = function._schema.name.split("::")[1]
    tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
    on = [t for t in tensors if isinstance(t, OnGpu)]
    target = _target(name, args, kwargs, tensors, on)
    stream = current_stream(on[0].device if on else target) if on or target is not None else None
    record = _recording.get(stream) if stream else None
    if record and record.thread != threading.get_ident():
        raise RuntimeError(f"{name} of another thread goes into the record of {stream}, which is capturing")
    if record and (name in LOOKS or _crosses(name, args, on, target)):
        raise RuntimeError(f"operation not permitted when stream is capturing: {name}")
    if kwargs.get("device") is not None and target is not None:
        kwargs = kwargs | {"device": torch.device("cpu")}
    if kwargs.get("pin_memory"):
        kwargs = kwargs | {"pin_memory": False}
    inner, named = (tree_map(lambda t: t.elem if isinstance(t, OnGpu) else t, part) for part in (args, kwargs))
    if record and on:
        record.note(function, inner)
    result = function(*inner, **named)
    if record and on:
        record.operations.append((function, inner, named, tree_leaves(result)))
    if on and name not in FREE and not any(part in name for part in PRODUCTS):
        moved[name] += sum(map(_bytes, (*tensors, *(t for t in tree_leaves(result) if isinstance(t, torch.Tensor)))))
    if target is None:
        return result
    given = {id(t.elem): t for t in on}
    return tree_map(lambda t: _wrapped(t, target, given), result)


def _wrapped(value: Any, index: int, given: dict[int, OnGpu]) -> Any:
    """What an operation wrote in place is the tensor that it was given."""
    if not isinstance(value, torch.Tensor):
        return value
    return given[id(value)] if id(value) in given else OnGpu(value, index)


def _target(name: str, args: tuple, kwargs: dict, tensors: list, on: list) -> int | None:
    """The GPU that the results are on, None for the CPU. Raises where tensors of several devices meet."""
    if name in INDEXES:
        indices = [i for i in args[1] if i is not None]
        mixed = {i.device for i in indices if isinstance(i, OnGpu)} - {args[0].device}
        others = [args[2]] if len(args) > 2 and args[2].dim() else []
        if mixed or any(t.device != args[0].device for t in others):
            raise RuntimeError(f"{name}: indices and values should be on {args[0].device}, found {mixed or others}")
    elif name not in COPIES and len(found := {t.device for t in tensors if t.dim() or t.device.type == "cuda"}) > 1:
        raise RuntimeError(f"{name}: Expected all tensors to be on the same device, but found {found}")
    if kwargs.get("device") is not None:
        return _index_of(kwargs["device"])
    first = args[0] if name in INDEXES | COPIES else on[0] if on else None
    return first.device.index if isinstance(first, OnGpu) else None


def _crosses(name: str, args: tuple, on: list, target: int | None) -> bool:
    """Whether numbers are moved between a GPU and pageable memory, or their number hangs on others."""
    if name in INDEXES:
        indices = [i for i in args[1] if i is not None]
        return any(i.dtype in (torch.bool, torch.uint8) or not isinstance(i, OnGpu) for i in indices)
    if name == "copy_":
        return isinstance(args[0], OnGpu) != isinstance(args[1], OnGpu) and args[1].dim() > 0
    return name == "_to_copy" and bool(on) != (target is not None) and args[0].dim() > 0


def _bytes(tensor: torch.Tensor) -> int:
    numbers = 1
    for size, stride in zip(tensor.shape, tensor.stride()):
        numbers *= size if stride else 1
    return numbers * tensor.element_size()


class Stream:
    """One of torch's pool, or with number 0 a GPU's default stream."""

    _made: Counter[int] = Counter()

    def __init__(self, device: Any = None, priority: int = 0, *, number: int | None = None) -> None:
        index = _index_of("cuda" if device is None else device)
        assert index is not None
        self.device, self.number = torch.device("cuda", index), number
        if number is None:
            self.number = 1 + self._made[index] % STREAMS_IN_POOL
            self._made[index] += 1

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stream) and (self.device, self.number) == (other.device, other.number)

    def __hash__(self) -> int:
        return hash((self.device, self.number))

    def __repr__(self) -> str:
        return f"stream {self.number} of {self.device}"

    def _refuse_a_recording(self) -> None:
        if self in _recording:
            raise RuntimeError(f"operation not permitted when stream is capturing: {self} is waited for")

    def synchronize(self) -> None:
        self._refuse_a_recording()

    def wait_stream(self, other: "Stream") -> None:
        other._refuse_a_recording()
        assert self.device == other.device, f"{self} waits for {other}, where no work of this GPU is"

    def wait_event(self, event: "Event") -> None:
        assert event.stream.device == self.device, f"{self} waits for an event of {event.stream}"

    def record_event(self, event: Any = None) -> "Event":
        return Event(self)


class Event:
    def __init__(self, stream: Stream) -> None:
        self.stream = stream


def current_stream(device: Any = None) -> Stream:
    index = device if isinstance(device, int) else _index_of("cuda" if device is None else device)
    assert index is not None
    return vars(_place).setdefault("streams", {}).get(index) or Stream(torch.device("cuda", index), number=0)


@contextlib.contextmanager
def on_device(device: Any) -> Iterator[None]:
    before = _gpu.current_device()
    _gpu.set_device(before if device is None else device if isinstance(device, int) else _index_of(device))
    try:
        yield
    finally:
        _gpu.set_device(before)


@contextlib.contextmanager
def on_stream(stream: Stream) -> Iterator[None]:
    index, before = stream.device.index, current_stream(stream.device)
    _place.streams[index] = stream
    try:
        with on_device(stream.device):
            yield
    finally:
        _place.streams[index] = before


class Graph:
    def __init__(self, keep_graph: bool = False) -> None:
        self.operations: list[tuple[Callable[..., Any], tuple, dict, list[Any]]] = []
        self._pool: Any = None
        self.replays = 0

    def pool(self) -> Any:
        return self._pool[1]

    def capture_begin(self, pool: Any = None, capture_error_mode: str = "global") -> None:
        self.stream, self.thread = current_stream(), threading.get_ident()
        if self.stream.number == 0:
            raise RuntimeError("CUDA graphs must be captured on a non-default stream.")
        key = (self.stream.device.index, graph_pool_handle() if pool is None else pool)
        if key in _ended:
            raise RuntimeError("it->second->use_count > 0 INTERNAL ASSERT FAILED at CUDACachingAllocator.cpp")
        _pools[key] += 1
        self._pool, self._overwritten = key, []
        weakref.finalize(self, _leave_pool, key)
        _recording[self.stream] = self

    def note(self, function: Any, args: tuple) -> None:
        for argument, value in zip(function._schema.arguments, args):
            if argument.alias_info is not None and argument.alias_info.is_write and isinstance(value, torch.Tensor):
                self._overwritten.append((value, value.clone()))

    def capture_end(self) -> None:
        del _recording[self.stream]
        for tensor, before in reversed(self._overwritten):
            tensor.copy_(before)
        self._overwritten = []

    def replay(self) -> None:
        self.replays += 1
        for function, args, named, results in self.operations:
            for result, again in zip(results, tree_leaves(function(*args, **named))):
                if isinstance(result, torch.Tensor) and result.data_ptr() != again.data_ptr():
                    result.copy_(again)


def _leave_pool(key: tuple[int, Any]) -> None:
    _pools[key] -= 1
    if _pools[key] == 0:
        _ended.add(key)


def graph_pool_handle() -> Any:
    return (0, next(_handles))


def empty_cache() -> None:
    if _recording:
        raise RuntimeError(
            "captures_underway.empty() INTERNAL ASSERT FAILED: torch's cache is emptied while a stream captures"
        )


def _no_grad_for_inference(mode: Any = True) -> Any:
    """Tensors of inference mode cannot be wrapped."""
    if callable(mode):
        return torch.no_grad()(mode)
    return torch.no_grad() if mode else contextlib.nullcontext()


_attention = F.scaled_dot_product_attention


def fused_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0, is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
) -> torch.Tensor:  # fmt: skip
    """One kernel on a GPU too, which torch would choose by what it knows of real ones."""
    if not isinstance(query, OnGpu):
        return _attention(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa)
    if torch.is_autocast_enabled("cuda"):
        query, key, value = (x.to(torch.get_autocast_dtype("cuda")) for x in (query, key, value))
    if enable_gqa:
        key, value = (x.repeat_interleave(query.shape[1] // x.shape[1], 1) for x in (key, value))
    mask = None if attn_mask is None else attn_mask.expand(*query.shape[:3], key.shape[2])
    if mask is not None and mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=query.dtype).masked_fill(~mask, float("-inf"))
    fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    return fused(query, key, value, dropout_p, is_causal, attn_mask=mask, scale=scale)[0]


def install(hooks: ctypes.CDLL) -> None:
    """Let torch find NUM_GPUS GPUs, in every thread. hooks: `hooks.cpp`, loaded before torch."""
    global _gpu
    _gpu = hooks
    cuda: Any = torch.cuda
    instead = {
        "_lazy_init": lambda: None, "is_available": lambda: True, "is_initialized": lambda: True,
        "device_count": lambda: NUM_GPUS, "current_device": hooks.current_device,
        "set_device": lambda device: hooks.set_device(device if isinstance(device, int) else _index_of(device)),
        "device": on_device, "get_device_name": lambda *_: "emulated", "get_device_capability": lambda *_: (9, 0),
        "is_bf16_supported": lambda *_, **__: True, "Stream": Stream, "stream": on_stream, "Event": Event,
        "current_stream": current_stream, "CUDAGraph": Graph, "graph_pool_handle": graph_pool_handle,
        "mem_get_info": lambda *_: (80 * 10**9, 80 * 10**9), "memory_reserved": lambda *_: 0,
        "memory_allocated": lambda device=0: alive[_index_of(device) or 0],
        "max_memory_allocated": lambda device=0: highest[_index_of(device) or 0],
        "reset_peak_memory_stats": lambda *_: highest.update() or highest.clear(), "empty_cache": empty_cache,
        "synchronize": lambda *_: None, "get_rng_state_all": list, "set_rng_state_all": lambda states: None,
        "manual_seed": lambda seed: None, "manual_seed_all": lambda seed: None,
    }  # fmt: skip
    for name, value in instead.items():
        setattr(cuda, name, value)
    common.amp_definitely_not_available = lambda: False
    torch.cuda.amp.common.amp_definitely_not_available = common.amp_definitely_not_available
    F.scaled_dot_product_attention = fused_attention  # type: ignore[assignment]
    torch.inference_mode = _no_grad_for_inference  # type: ignore[assignment,misc]
    torch._C._set_only_lift_cpu_tensors(True)
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    Devices().__enter__()
    thread_run = threading.Thread.run

    def run_with_devices(self: threading.Thread) -> None:
        with Devices():
            thread_run(self)

    threading.Thread.run = run_with_devices  # type: ignore[method-assign]
