"""Attention of a few new tokens over cached keys and values, their rotary angles applied and the cache written to.

On a CPU by `cached_attention.cpp`, compiled when it is first needed: torch's own kernel takes several times as long for one
query, most of the time of a rollout. Without a compiler, and on GPUs, by torch.
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

import torch
import torch.nn.functional as F
from torch import Tensor

SOURCE = Path(__file__).with_suffix(".cpp")
NUMBERS = {torch.float32: "float", torch.bfloat16: "bf16"}
# Sums in any order, which vectors need; infinities and NaN keep their meaning.
FLAGS = ["-O3", "-std=c++17", "-shared", "-fPIC", "-fopenmp", "-fassociative-math", "-fno-signed-zeros",
         "-fno-trapping-math", "-fno-math-errno"]  # fmt: skip
COMPILE_SECONDS = 120
Angles = tuple[Tensor, Tensor]  # what `turning` gives
Stem = tuple[Tensor, Tensor, Tensor]  # keys and values (heads, L, D), and how much of them each row sees, (R,) int64


def turning(cos: Tensor, sin: Tensor) -> Angles:
    """Cosines and sines (R, S, D) so that x cos + swapped(x) sin turns x = (a, b) into (a cos − b sin, b cos + a sin).

    Su et al. 2021 (arXiv 2104.09864), halves as in transformers; swapped(x) = (b, a).
    """
    first, second = sin.chunk(2, dim=-1)
    return cos, torch.cat([-first, second], dim=-1)


class _Pass(ctypes.Structure):
    """`Pass` in the source, field by field."""

    _fields_ = [
        *[(name, ctypes.c_int64) for name in ("rows", "tokens", "key_heads", "groups", "begin", "room", "stem_room")],
        ("threads", ctypes.c_int64),
        *[(name, ctypes.c_void_p) for name in ("heads", "cos", "sin", "keys", "values", "visible")],
        *[(name, ctypes.c_void_p) for name in ("stem_keys", "stem_values", "stem_lengths", "found")],
        ("scale", ctypes.c_float),
    ]


class Kernel:
    """The compiled source. number: a value of NUMBERS. width: numbers per head. Raises OSError where it cannot be made."""

    def __init__(self, number: str, width: int) -> None:
        with tempfile.TemporaryDirectory() as folder:
            library = Path(folder) / "cached_attention.so"
            _compile([f"-DNUMBER={number}", f"-DWIDTH={width}"], library)
            self.attend = ctypes.CDLL(str(library)).attend
        self.attend.argtypes, self.attend.restype = [ctypes.POINTER(_Pass)], None

    def __call__(
        self, heads: Tensor, angles: Angles, keys: Tensor, values: Tensor, visible: Tensor, begin: int,
        stem: Stem | None, scale: float,
    ) -> Tensor:  # fmt: skip
        """See `attend`; visible: (slots, columns) bool, the opened columns included, and nothing sees what comes after it.

        stem: what stands before the columns of every row.
        """
        rows, tokens, _, width = heads.shape
        queries = heads.shape[2] - 2 * keys.shape[1]
        heads, (cos, sin) = heads.to(keys.dtype).contiguous(), (a.float().contiguous() for a in angles)
        found = torch.empty(rows, tokens, queries, width, dtype=keys.dtype)
        assert keys.is_contiguous() and values.is_contiguous() and visible.is_contiguous()
        assert rows <= len(keys) and begin + tokens <= keys.shape[2] and visible.shape == (len(keys), keys.shape[2])
        stem_keys, stem_values, stem_lengths = stem or (None, None, None)
        assert stem is None or (stem[0].dtype == keys.dtype and stem[2].dtype == torch.int64 and len(stem[2]) >= rows)
        self.attend(
            _Pass(
                rows, tokens, keys.shape[1], queries // keys.shape[1], begin, keys.shape[2],
                0 if stem_keys is None else stem_keys.shape[1], torch.get_num_threads(),
                *map(_address, (heads, cos, sin, keys, values, visible, stem_keys, stem_values, stem_lengths, found)),
                scale,
            )
        )  # fmt: skip
        return found


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def kernel_for(device: torch.device, dtype: torch.dtype, width: int) -> Kernel | None:
    """None on GPUs, for other numbers, and where it cannot be compiled, which is said once."""
    return _kernel(NUMBERS[dtype], width) if device.type == "cpu" and dtype in NUMBERS else None


@cache
def _kernel(number: str, width: int) -> Kernel | None:
    try:
        return Kernel(number, width)
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


def attend(
    heads: Tensor, angles: Angles, keys: Tensor, values: Tensor, mask: Tensor, begin: int, scale: float
) -> Tensor:
    """What the queries of new tokens find, (A, S, Hq, D), by torch; writes the tokens' keys and values.

    heads: (A, S, Hq + 2 · Hk, D), queries, then keys, then values of each token. keys, values: (slots, Hk, columns, D), the
    first `begin` columns written. mask: (A, 1, S, begin + S), what is added to the scores; or bool.
    """
    rows, tokens, key_heads = len(heads), heads.shape[1], keys.shape[1]
    both, new_values = heads.split([heads.shape[2] - key_heads, key_heads], dim=2)
    cos, sin = (a[:, :, None] for a in angles)
    both = both.to(cos.dtype)
    turned = torch.addcmul(both * cos, both.roll(heads.shape[3] // 2, -1), sin)
    queries, new_keys = turned.to(keys.dtype).split([heads.shape[2] - 2 * key_heads, key_heads], dim=2)
    end = begin + tokens
    keys[:rows, :, begin:end], values[:rows, :, begin:end] = new_keys.transpose(1, 2), new_values.transpose(1, 2)
    found = F.scaled_dot_product_attention(
        queries.transpose(1, 2), keys[:rows, :, :end], values[:rows, :, :end], attn_mask=mask, scale=scale,
        enable_gqa=queries.shape[2] > key_heads,
    )  # fmt: skip
    return found.transpose(1, 2)
