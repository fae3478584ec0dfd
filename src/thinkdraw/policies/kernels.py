"""What a decoding step does between its matrix products, on a CPU, by `kernels.cpp`, compiled when it is first needed.

torch's attention of one query takes several times as long, and its norms and gates several passes over few numbers: together
more than half of a rollout. Without a compiler, and on GPUs, torch does it: `cache.py` and `decoder.py` know both ways.
"""

import ctypes
import os
import shlex
import shutil
import subprocess
import tempfile
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

SOURCE = Path(__file__).with_suffix(".cpp")
NUMBERS = {torch.float32: "float", torch.bfloat16: "bf16"}
# Sums in any order, which vectors need; infinities and NaN keep their meaning.
FLAGS = ["-O3", "-std=c++17", "-shared", "-fPIC", "-fopenmp", "-fassociative-math", "-fno-signed-zeros",
         "-fno-trapping-math", "-fno-math-errno"]  # fmt: skip
COMPILE_SECONDS = 120
Angles = tuple[Tensor, Tensor]  # what `cache.turning` gives
Stem = tuple[Tensor, Tensor, Tensor]  # keys and values (heads, L, D), and how much of them each row sees, (R,) int64


class _Attention(ctypes.Structure):
    """`Attention` in the source, field by field; so are the others."""

    _fields_ = [
        *[(name, ctypes.c_int64) for name in ("rows", "tokens", "key_heads", "groups", "room", "stem_room", "threads")],
        *[(name, ctypes.c_void_p) for name in ("heads", "cos", "sin", "keys", "values", "begins")],
        *[(name, ctypes.c_void_p) for name in ("stem_keys", "stem_values", "stem_lengths", "found")],
        ("scale", ctypes.c_float),
    ]


class _Norm(ctypes.Structure):
    _fields_ = [
        *[(name, ctypes.c_int64) for name in ("rows", "size", "threads")],
        *[(name, ctypes.c_void_p) for name in ("stream", "change", "weight", "sum", "normed")],
        ("eps", ctypes.c_float),
    ]


class _Gate(ctypes.Structure):
    _fields_ = [
        *[(name, ctypes.c_int64) for name in ("rows", "size", "threads")],
        *[(name, ctypes.c_void_p) for name in ("both", "gated")],
    ]


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
        takes = {"attend": _Attention, "gate": _Gate}
        takes |= dict.fromkeys(("norm_to_float", "norm_to_number", "norm_of_number"), _Norm)
        for name, structure in takes.items():
            function: Any = getattr(self._made, name)
            function.argtypes, function.restype = [ctypes.POINTER(structure)], None

    def attend(
        self, heads: Tensor, angles: Angles, keys: Tensor, values: Tensor, begins: Tensor, stem: Stem | None,
        scale: float,
    ) -> Tensor:  # fmt: skip
        """What the queries of new tokens find, (A, S, Hq, D); writes the tokens' keys and values, as `Cache.attend` says.

        begins: (A,) int64, the column of each row's first new token. The caller sees to it that there is room for all.
        """
        rows, tokens, _, width = heads.shape
        queries = heads.shape[2] - 2 * keys.shape[1]
        heads, (cos, sin) = heads.to(keys.dtype).contiguous(), (a.float().contiguous() for a in angles)
        found = torch.empty(rows, tokens, queries, width, dtype=keys.dtype)
        assert keys.is_contiguous() and values.is_contiguous() and rows <= len(keys) and keys.dtype == self.dtype
        assert begins.dtype == torch.int64 and begins.is_contiguous() and len(begins) >= rows
        stem_keys, stem_values, stem_lengths = stem or (None, None, None)
        assert stem is None or (stem[0].dtype == keys.dtype and stem[2].dtype == torch.int64 and len(stem[2]) >= rows)
        self._made.attend(
            _Attention(
                rows, tokens, keys.shape[1], queries // keys.shape[1], keys.shape[2],
                0 if stem_keys is None else stem_keys.shape[1], torch.get_num_threads(),
                *map(_address, (heads, cos, sin, keys, values, begins, stem_keys, stem_values, stem_lengths, found)),
                scale,
            )
        )  # fmt: skip
        return found

    def norm(
        self, stream: Tensor, change: Tensor | None, weight: Tensor, eps: float, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        """(stream + change, its norm times `weight` in `dtype`), each (R, H). Zhang and Sennrich 2019 (arXiv 1910.07467)."""
        kinds = {(torch.float32, torch.float32): "norm_to_float", (torch.float32, self.dtype): "norm_to_number"}
        kind = kinds.get((stream.dtype, dtype), "norm_of_number")
        assert kind != "norm_of_number" or stream.dtype == dtype == self.dtype
        stream, weight = stream.contiguous(), weight.detach()
        change = None if change is None else change.to(self.dtype).contiguous()
        assert weight.dtype == stream.dtype and weight.is_contiguous() and len(weight) == stream.shape[1]
        assert change is None or change.shape == stream.shape
        total, normed = stream if change is None else torch.empty_like(stream), torch.empty_like(stream, dtype=dtype)
        places = (stream, change, weight, None if change is None else total, normed)
        getattr(self._made, kind)(_Norm(*stream.shape, torch.get_num_threads(), *map(_address, places), eps))
        return total, normed

    def gate(self, both: Tensor) -> Tensor:
        """silu(g) · u (R, I) of rows (g, u) (R, 2 · I). Shazeer 2020 (arXiv 2002.05202)."""
        both = both.to(self.dtype).contiguous()
        gated = torch.empty(len(both), both.shape[1] // 2, dtype=self.dtype)
        self._made.gate(_Gate(*gated.shape, torch.get_num_threads(), _address(both), _address(gated)))
        return gated


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def kernels_for(device: torch.device, dtype: torch.dtype, width: int) -> Kernels | None:
    """None on GPUs, for other numbers, and where they cannot be compiled, which is said once."""
    return _kernels(dtype, width) if device.type == "cpu" and dtype in NUMBERS else None


@cache
def _kernels(dtype: torch.dtype, width: int) -> Kernels | None:
    try:
        return Kernels(dtype, width)
    except OSError as error:
        warnings.warn(
            f"sampling takes up to twice as long as it could on this CPU: {error}. A C++ compiler with OpenMP, such as "
            "g++, helps; CXX names one.",
            stacklevel=2,
        )
        return None


def _compile(definitions: list[str], library: Path) -> None:
    found = next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), "")
    compiler = shlex.split(os.environ.get("CXX", "")) or [found]
    if not compiler[0]:
        raise OSError("no C++ compiler found")
    error = ""
    for tuned in (["-march=native"], []):  # some compilers do not know it
        command = [*compiler, *FLAGS, *tuned, *definitions, str(SOURCE), "-o", str(library)]
        try:
            made = subprocess.run(command, capture_output=True, text=True, timeout=COMPILE_SECONDS)
        except subprocess.TimeoutExpired as late:
            raise OSError(f"{compiler[0]} did not finish within {COMPILE_SECONDS} seconds") from late
        if made.returncode == 0:
            return
        error = made.stderr.strip().splitlines()[0] if made.stderr.strip() else f"exit {made.returncode}"
    raise OSError(f"{compiler[0]} failed: {error}")
