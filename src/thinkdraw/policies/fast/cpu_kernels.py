"""C++ kernels for what a language model does on a CPU between its matrix products.

They are in `native` and compiled when first needed. torch takes several times as long for attention of one query,
and several passes over memory for norms, gates and RoPE: more than half of a rollout together, and a tenth of
learning or more. Without a compiler, and on GPUs, torch does this work. `cpu_cache.py`, `cpu_operations.py` and
`learning_layer.py` know both ways.
"""

import ctypes
import os
import shlex
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers.activations import SiLUActivation

from thinkdraw.errors import printable
from thinkdraw.policies.sampling.cache import Rotation

SOURCES = sorted((Path(__file__).parent / "native").glob("*.cpp"))
NUMBERS = {torch.float32: "float", torch.bfloat16: "bf16"}
# Sums may be reordered, which vectors need. Infinities and NaN keep their meaning, unlike with -ffast-math.
FLAGS = ["-O3", "-std=c++17", "-shared", "-fPIC", "-fopenmp", "-fassociative-math", "-fno-signed-zeros",
         "-fno-trapping-math", "-fno-math-errno"]  # fmt: skip
COMPILE_SECONDS = 120
Prefix = tuple[Tensor, Tensor, Tensor]  # keys and values (heads, L, D), and how many tokens each row sees, (R,) int64


def _struct(name: str, *fields: tuple[Any, str]) -> type[ctypes.Structure]:
    """Declare the struct that a C++ function takes, field by field as there.

    fields: a type, and the names of the fields that have it.
    """
    each = [(field, kind) for kind, names in fields for field in names.split()]
    return type(name, (ctypes.Structure,), {"_fields_": each})


_INT, _AT, _FLOAT = ctypes.c_int64, ctypes.c_void_p, ctypes.c_float
_Attention = _struct(
    "Attention", (_INT, "rows tokens key_heads groups capacity prefix_capacity threads"),
    (_AT, "heads cos sin keys values begins prefix_keys prefix_values prefix_lengths attended"), (_FLOAT, "scale"),
)  # fmt: skip
_Rotate = _struct("Rotate", (_INT, "rows tokens heads angle_rows threads"), (_AT, "source cos sin to"))
_Norm = _struct("Norm", (_INT, "rows size threads"), (_AT, "stream change weight sum normed"), (_FLOAT, "eps"))
_NormBackward = _struct(
    "NormBackward", (_INT, "rows size threads"),
    (_AT, "sum weight grad_sum grad_normed grad_stream grad_change grad_weight"), (_FLOAT, "eps"),
)  # fmt: skip
_Gate = _struct("Gate", (_INT, "rows size stride threads"), (_AT, "gate up gated"))
_GateBackward = _struct("GateBackward", (_INT, "rows size threads"), (_AT, "gate up grad_gated grad_gate grad_up"))
_NORMS = ("norm_to_float", "norm_to_number", "norm_of_number")
STRUCTS = {
    "attend": _Attention,
    "rotate": _Rotate,
    "rotate_backward": _Rotate,
    "gate": _Gate,
    "gate_backward": _GateBackward,
}
STRUCTS |= dict.fromkeys(_NORMS, _Norm) | {f"{name}_backward": _NormBackward for name in _NORMS}


class Kernels:
    """The compiled kernels, for one dtype (a key of NUMBERS) and width of heads.

    Raises OSError where they cannot be compiled.
    """

    def __init__(self, dtype: torch.dtype, width: int) -> None:
        self.dtype = dtype
        with tempfile.TemporaryDirectory() as folder:
            library = Path(folder) / "kernels.so"
            _compile([f"-DNUMBER={NUMBERS[dtype]}", f"-DWIDTH={width}"], library)
            self._library = ctypes.CDLL(str(library))
        for name, structure in STRUCTS.items():
            function: Any = getattr(self._library, name, None)
            if function is None:
                raise OSError(f"the compiled library has no function {name}")
            function.argtypes, function.restype = [ctypes.POINTER(structure)], None

    def attend(
        self, heads: Tensor, rotation: Rotation, keys: Tensor, values: Tensor, begins: Tensor, prefix: Prefix | None,
        scale: float,
    ) -> Tensor:  # fmt: skip
        """Cache the keys and values of new tokens, and attend: (A, S, Hq, D).

        See `KVCache.attend`. The caller checks that the cache has space for all.
        begins: (A,) int64, the column of each row's first new token.
        """
        rows, tokens, _, width = heads.shape
        queries = heads.shape[2] - 2 * keys.shape[1]
        heads, (cos, sin) = heads.to(keys.dtype).contiguous(), (a.float().contiguous() for a in rotation)
        attended = torch.empty(rows, tokens, queries, width, dtype=keys.dtype)
        assert keys.is_contiguous() and values.is_contiguous() and rows <= len(keys) and keys.dtype == self.dtype
        assert begins.dtype == torch.int64 and begins.is_contiguous() and len(begins) >= rows
        prefix_keys, prefix_values, prefix_lengths = prefix or (None, None, None)
        assert prefix is None or (prefix[0].dtype == keys.dtype and prefix[2].dtype == torch.int64)
        assert prefix is None or len(prefix[2]) >= rows
        self._run(
            "attend", rows, tokens, keys.shape[1], queries // keys.shape[1], keys.shape[2],
            0 if prefix_keys is None else prefix_keys.shape[1], torch.get_num_threads(),
            heads, cos, sin, keys, values, begins, prefix_keys, prefix_values, prefix_lengths, attended, scale,
        )  # fmt: skip
        return attended

    def rotate(self, heads: Tensor, rotation: Rotation) -> Tensor:
        """Apply RoPE to queries or keys (R, S, H, D), and return them as (R, H, S, D).

        rotation: (1, S, D) or (R, S, D).
        """
        return self._rotate("rotate", heads, rotation, heads.shape[:3])

    def rotate_backward(self, grad_rotated: Tensor, rotation: Rotation) -> Tensor:
        """Compute the gradient (R, S, H, D) of `rotate`: rotate by the opposite angles."""
        rows, heads, tokens = grad_rotated.shape[:3]
        return self._rotate("rotate_backward", grad_rotated, (rotation[0], -rotation[1]), (rows, tokens, heads))

    def _rotate(self, name: str, source: Tensor, rotation: Rotation, sizes: Sequence[int]) -> Tensor:
        """Run `rotate` or `rotate_backward`.

        sizes: rows, tokens and heads.
        """
        source, (cos, sin) = source.to(self.dtype).contiguous(), (a.float().contiguous() for a in rotation)
        rotated = torch.empty(source.shape[0], source.shape[2], source.shape[1], source.shape[3], dtype=self.dtype)
        assert len(cos) in (1, sizes[0]) and cos.shape == sin.shape and cos.shape[1:] == (sizes[1], source.shape[3])
        self._run(name, *sizes, len(cos), torch.get_num_threads(), source, cos, sin, rotated)
        return rotated

    def norm(
        self, stream: Tensor, change: Tensor | None, weight: Tensor, eps: float, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        """Return stream + change, and its RMSNorm times `weight` in `dtype`, each (R, H).

        Zhang and Sennrich 2019 (arXiv 1910.07467).
        """
        kind = self._norm(stream.dtype, dtype)
        stream, weight = stream.contiguous(), weight.detach()
        change = None if change is None else change.to(self.dtype).contiguous()
        assert weight.dtype == stream.dtype and weight.is_contiguous() and len(weight) == stream.shape[1]
        assert change is None or change.shape == stream.shape
        total, normed = stream if change is None else torch.empty_like(stream), torch.empty_like(stream, dtype=dtype)
        tensors = (stream, change, weight, None if change is None else total, normed)
        self._run(kind, *stream.shape, torch.get_num_threads(), *tensors, eps)
        return total, normed

    def norm_backward(
        self, total: Tensor, weight: Tensor, eps: float, grad_total: Tensor | None, grad_normed: Tensor, changed: bool
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """Compute gradients of `norm`: of stream, change and weight.

        They are (R, H), (R, H) or None without a change, and (H,) float32.
        total: what `norm` returned.
        grad_total, grad_normed: (R, H), gradients of what `norm` returned.
        """
        kind = self._norm(total.dtype, grad_normed.dtype)
        total, grad_normed, weight = total.contiguous(), grad_normed.contiguous(), weight.detach()
        grad_total = None if grad_total is None else grad_total.to(total.dtype).contiguous()
        assert weight.dtype == total.dtype and weight.is_contiguous() and grad_normed.shape == total.shape
        grad_stream, threads = torch.empty_like(total), torch.get_num_threads()
        grad_change = torch.empty_like(total, dtype=self.dtype) if changed else None
        grad_weight = torch.zeros(threads, total.shape[1])
        tensors = (total, weight, grad_total, grad_normed, grad_stream, grad_change, grad_weight)
        self._run(f"{kind}_backward", *total.shape, threads, *tensors, eps)
        return grad_stream, grad_change, grad_weight.sum(0)

    def _norm(self, stream: torch.dtype, normed: torch.dtype) -> str:
        """Choose the C++ function for these dtypes of residual stream and result."""
        kinds = {(torch.float32, torch.float32): "norm_to_float", (torch.float32, self.dtype): "norm_to_number"}
        kind = kinds.get((stream, normed), "norm_of_number")
        assert kind != "norm_of_number" or stream == normed == self.dtype
        return kind

    def gate(self, gate: Tensor, up: Tensor) -> Tensor:
        """Compute silu(gate) · up, each (R, I), also of two halves of one matrix.

        Shazeer 2020 (arXiv 2002.05202).
        """
        gate, up = gate.to(self.dtype), up.to(self.dtype)
        if gate.stride() != up.stride() or gate.stride(1) != 1:
            gate, up = gate.contiguous(), up.contiguous()
        gated = torch.empty(gate.shape, dtype=self.dtype)
        self._run("gate", *gate.shape, gate.stride(0), torch.get_num_threads(), gate, up, gated)
        return gated

    def gate_backward(self, gate: Tensor, up: Tensor, grad_gated: Tensor) -> tuple[Tensor, Tensor]:
        """Compute gradients of gate and up, all (R, I)."""
        gate, up, grad_gated = (x.to(self.dtype).contiguous() for x in (gate, up, grad_gated))
        grad_gate, grad_up = torch.empty_like(gate), torch.empty_like(gate)
        self._run("gate_backward", *gate.shape, torch.get_num_threads(), gate, up, grad_gated, grad_gate, grad_up)
        return grad_gate, grad_up

    def _run(self, name: str, *fields: Tensor | float | None) -> None:
        """Call a C++ function with its struct's fields in order."""
        values = [field.data_ptr() if isinstance(field, Tensor) else field for field in fields]
        getattr(self._library, name)(STRUCTS[name](*values))


def is_silu(act: Any) -> bool:
    """Whether an MLP's activation is the one that `Kernels.gate` computes."""
    return isinstance(act, nn.SiLU | SiLUActivation)


def kernels_for(device: torch.device, dtype: torch.dtype, width: int) -> Kernels | None:
    """Return the kernels, or None where there are none.

    That is on GPUs, for other dtypes, and where they cannot be compiled, of which it warns once.
    """
    return _kernels(dtype, width) if device.type == "cpu" and dtype in NUMBERS else None


@cache
def _kernels(dtype: torch.dtype, width: int) -> Kernels | None:
    """Compile the kernels once; None where that fails."""
    try:
        return Kernels(dtype, width)
    except OSError as error:
        warnings.warn(
            f"sampling takes up to twice as long as it could on this CPU, and learning a tenth longer: {error}. Install "
            "a C++ compiler with OpenMP, such as g++; the environment variable CXX may name it.",
            stacklevel=2,
        )
        return None


def _compile(definitions: list[str], library: Path) -> None:
    """Compile the sources to a library. Raises OSError."""
    default = next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), "")
    try:
        compiler = shlex.split(os.environ.get("CXX", "")) or [default]
    except ValueError as wrong:
        raise OSError(f"CXX={os.environ['CXX']!r} is no command ({wrong})") from wrong
    if not compiler[0]:
        raise OSError("no C++ compiler found")
    error = ""
    for tuned in (["-march=native"], []):  # some compilers do not know -march=native
        command = [*compiler, *FLAGS, *tuned, *definitions, *map(str, SOURCES), "-o", str(library)]
        try:
            result = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
                timeout=COMPILE_SECONDS,
            )  # fmt: skip
        except subprocess.TimeoutExpired as late:
            raise OSError(f"{compiler[0]} did not finish within {COMPILE_SECONDS} seconds") from late
        if result.returncode == 0:
            return
        messages = result.stderr.strip().splitlines()
        error = printable(messages[0])[:200] if messages else f"exit {result.returncode}"
    raise OSError(f"{compiler[0]} failed: {error}")
