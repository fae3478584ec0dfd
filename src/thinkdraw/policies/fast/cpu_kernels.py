"""What the language model does between its matrix products, on a CPU, by the C++ in `native`, compiled when it is first needed.

torch's attention of one query takes several times as long, and its norms, gates and turns several passes over their numbers:
together more than half of a rollout, and a tenth of learning and more. Without a compiler, and on GPUs, torch does it: `cpu_cache.py`,
`cpu_operations.py` and `learning_layer.py` know both ways.
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
# Sums in any order, which vectors need; infinities and NaN keep their meaning.
FLAGS = ["-O3", "-std=c++17", "-shared", "-fPIC", "-fopenmp", "-fassociative-math", "-fno-signed-zeros",
         "-fno-trapping-math", "-fno-math-errno"]  # fmt: skip
COMPILE_SECONDS = 120
Prefix = tuple[Tensor, Tensor, Tensor]  # keys and values (heads, L, D), and how much of them each row sees, (R,) int64


def _struct(name: str, *fields: tuple[Any, str]) -> type[ctypes.Structure]:
    """What a function of the source takes, field by field as there. fields: a type, and the names of those that have it."""
    each = [(field, kind) for kind, names in fields for field in names.split()]
    return type(name, (ctypes.Structure,), {"_fields_": each})


_INT, _AT, _FLOAT = ctypes.c_int64, ctypes.c_void_p, ctypes.c_float
_Attention = _struct(
    "Attention", (_INT, "rows tokens key_heads groups capacity prefix_capacity threads"),
    (_AT, "heads cos sin keys values begins prefix_keys prefix_values prefix_lengths found"), (_FLOAT, "scale"),
)  # fmt: skip
_Turn = _struct("Turn", (_INT, "rows tokens heads angle_rows threads"), (_AT, "source cos sin to"))
_Norm = _struct("Norm", (_INT, "rows size threads"), (_AT, "stream change weight sum normed"), (_FLOAT, "eps"))
_NormBack = _struct(
    "NormBack", (_INT, "rows size threads"),
    (_AT, "sum weight of_sum of_normed of_stream of_change of_weight"), (_FLOAT, "eps"),
)  # fmt: skip
_Gate = _struct("Gate", (_INT, "rows size stride threads"), (_AT, "gate up gated"))
_GateBack = _struct("GateBack", (_INT, "rows size threads"), (_AT, "gate up of_gated of_gate of_up"))
_NORMS = ("norm_to_float", "norm_to_number", "norm_of_number")
TAKES = {"attend": _Attention, "turn": _Turn, "turn_back": _Turn, "gate": _Gate, "gate_back": _GateBack}
TAKES |= dict.fromkeys(_NORMS, _Norm) | {f"{name}_back": _NormBack for name in _NORMS}


class Kernels:
    """The compiled source, for numbers of `dtype`, a key of NUMBERS, and heads of `width` of them.

    Raises OSError where it cannot be made.
    """

    def __init__(self, dtype: torch.dtype, width: int) -> None:
        self.dtype = dtype
        with tempfile.TemporaryDirectory() as folder:
            library = Path(folder) / "kernels.so"
            _compile([f"-DNUMBER={NUMBERS[dtype]}", f"-DWIDTH={width}"], library)
            self._made = ctypes.CDLL(str(library))
        for name, structure in TAKES.items():
            function: Any = getattr(self._made, name, None)
            if function is None:
                raise OSError(f"what the C++ compiler made has no function {name}")
            function.argtypes, function.restype = [ctypes.POINTER(structure)], None

    def attend(
        self, heads: Tensor, rotation: Rotation, keys: Tensor, values: Tensor, begins: Tensor, prefix: Prefix | None,
        scale: float,
    ) -> Tensor:  # fmt: skip
        """What the queries of new tokens find, (A, S, Hq, D); writes the tokens' keys and values, as `KVCache.attend` says.

        begins: (A,) int64, the column of each row's first new token. The caller sees to it that there is room for all.
        """
        rows, tokens, _, width = heads.shape
        queries = heads.shape[2] - 2 * keys.shape[1]
        heads, (cos, sin) = heads.to(keys.dtype).contiguous(), (a.float().contiguous() for a in rotation)
        found = torch.empty(rows, tokens, queries, width, dtype=keys.dtype)
        assert keys.is_contiguous() and values.is_contiguous() and rows <= len(keys) and keys.dtype == self.dtype
        assert begins.dtype == torch.int64 and begins.is_contiguous() and len(begins) >= rows
        prefix_keys, prefix_values, prefix_lengths = prefix or (None, None, None)
        assert prefix is None or (prefix[0].dtype == keys.dtype and prefix[2].dtype == torch.int64)
        assert prefix is None or len(prefix[2]) >= rows
        self._run(
            "attend", rows, tokens, keys.shape[1], queries // keys.shape[1], keys.shape[2],
            0 if prefix_keys is None else prefix_keys.shape[1], torch.get_num_threads(),
            heads, cos, sin, keys, values, begins, prefix_keys, prefix_values, prefix_lengths, found, scale,
        )  # fmt: skip
        return found

    def turn(self, heads: Tensor, rotation: Rotation) -> Tensor:
        """Queries or keys (R, S, H, D) turned by their angles, (1, S, D) or (R, S, D), as (R, H, S, D)."""
        return self._turn("turn", heads, rotation, heads.shape[:3])

    def turn_back(self, of_turned: Tensor, rotation: Rotation) -> Tensor:
        """The gradient (R, S, H, D) of what was turned: (R, H, S, D) turned by the opposite angles."""
        rows, heads, tokens = of_turned.shape[:3]
        return self._turn("turn_back", of_turned, (rotation[0], -rotation[1]), (rows, tokens, heads))

    def _turn(self, name: str, source: Tensor, rotation: Rotation, sizes: Sequence[int]) -> Tensor:
        source, (cos, sin) = source.to(self.dtype).contiguous(), (a.float().contiguous() for a in rotation)
        turned = torch.empty(source.shape[0], source.shape[2], source.shape[1], source.shape[3], dtype=self.dtype)
        assert len(cos) in (1, sizes[0]) and cos.shape == sin.shape and cos.shape[1:] == (sizes[1], source.shape[3])
        self._run(name, *sizes, len(cos), torch.get_num_threads(), source, cos, sin, turned)
        return turned

    def norm(
        self, stream: Tensor, change: Tensor | None, weight: Tensor, eps: float, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        """(stream + change, its norm times `weight` in `dtype`), each (R, H). Zhang and Sennrich 2019 (arXiv 1910.07467)."""
        kind = self._norm(stream.dtype, dtype)
        stream, weight = stream.contiguous(), weight.detach()
        change = None if change is None else change.to(self.dtype).contiguous()
        assert weight.dtype == stream.dtype and weight.is_contiguous() and len(weight) == stream.shape[1]
        assert change is None or change.shape == stream.shape
        total, normed = stream if change is None else torch.empty_like(stream), torch.empty_like(stream, dtype=dtype)
        places = (stream, change, weight, None if change is None else total, normed)
        self._run(kind, *stream.shape, torch.get_num_threads(), *places, eps)
        return total, normed

    def norm_back(
        self, total: Tensor, weight: Tensor, eps: float, of_total: Tensor | None, of_normed: Tensor, changed: bool
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """Gradients of the stream (R, H), of the change, None where there was none, and of the weight (H,), float32.

        total: what `norm` gave. of_total, of_normed: (R, H) gradients of what it gave.
        """
        kind = self._norm(total.dtype, of_normed.dtype)
        total, of_normed, weight = total.contiguous(), of_normed.contiguous(), weight.detach()
        of_total = None if of_total is None else of_total.to(total.dtype).contiguous()
        assert weight.dtype == total.dtype and weight.is_contiguous() and of_normed.shape == total.shape
        of_stream, threads = torch.empty_like(total), torch.get_num_threads()
        of_change = torch.empty_like(total, dtype=self.dtype) if changed else None
        of_weight = torch.zeros(threads, total.shape[1])
        places = (total, weight, of_total, of_normed, of_stream, of_change, of_weight)
        self._run(f"{kind}_back", *total.shape, threads, *places, eps)
        return of_stream, of_change, of_weight.sum(0)

    def _norm(self, stream: torch.dtype, normed: torch.dtype) -> str:
        kinds = {(torch.float32, torch.float32): "norm_to_float", (torch.float32, self.dtype): "norm_to_number"}
        kind = kinds.get((stream, normed), "norm_of_number")
        assert kind != "norm_of_number" or stream == normed == self.dtype
        return kind

    def gate(self, gate: Tensor, up: Tensor) -> Tensor:
        """silu(gate) · up (R, I) of two (R, I), also of two halves of one matrix. Shazeer 2020 (arXiv 2002.05202)."""
        gate, up = gate.to(self.dtype), up.to(self.dtype)
        if gate.stride() != up.stride() or gate.stride(1) != 1:
            gate, up = gate.contiguous(), up.contiguous()
        gated = torch.empty(gate.shape, dtype=self.dtype)
        self._run("gate", *gate.shape, gate.stride(0), torch.get_num_threads(), gate, up, gated)
        return gated

    def gate_back(self, gate: Tensor, up: Tensor, of_gated: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of both, all (R, I)."""
        gate, up, of_gated = (x.to(self.dtype).contiguous() for x in (gate, up, of_gated))
        of_gate, of_up = torch.empty_like(gate), torch.empty_like(gate)
        self._run("gate_back", *gate.shape, torch.get_num_threads(), gate, up, of_gated, of_gate, of_up)
        return of_gate, of_up

    def _run(self, name: str, *fields: Tensor | float | None) -> None:
        given = [field.data_ptr() if isinstance(field, Tensor) else field for field in fields]
        getattr(self._made, name)(TAKES[name](*given))


def is_silu(act: Any) -> bool:
    """Whether an MLP's activation is the one that `Kernels.gate` knows."""
    return isinstance(act, nn.SiLU | SiLUActivation)


def kernels_for(device: torch.device, dtype: torch.dtype, width: int) -> Kernels | None:
    """None on GPUs, for other numbers, and where they cannot be compiled, which is said once."""
    return _kernels(dtype, width) if device.type == "cpu" and dtype in NUMBERS else None


@cache
def _kernels(dtype: torch.dtype, width: int) -> Kernels | None:
    try:
        return Kernels(dtype, width)
    except OSError as error:
        warnings.warn(
            f"sampling takes up to twice as long as it could on this CPU, and learning a tenth longer: {error}. A C++ "
            "compiler with OpenMP, such as g++, helps; CXX names one.",
            stacklevel=2,
        )
        return None


def _compile(definitions: list[str], library: Path) -> None:
    found = next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), "")
    try:
        compiler = shlex.split(os.environ.get("CXX", "")) or [found]
    except ValueError as wrong:
        raise OSError(f"CXX={os.environ['CXX']!r} is no command ({wrong})") from wrong
    if not compiler[0]:
        raise OSError("no C++ compiler found")
    error = ""
    for tuned in (["-march=native"], []):  # some compilers do not know it
        command = [*compiler, *FLAGS, *tuned, *definitions, *map(str, SOURCES), "-o", str(library)]
        try:
            made = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
                timeout=COMPILE_SECONDS,
            )  # fmt: skip
        except subprocess.TimeoutExpired as late:
            raise OSError(f"{compiler[0]} did not finish within {COMPILE_SECONDS} seconds") from late
        if made.returncode == 0:
            return
        said = made.stderr.strip().splitlines()
        error = printable(said[0])[:200] if said else f"exit {made.returncode}"
    raise OSError(f"{compiler[0]} failed: {error}")
