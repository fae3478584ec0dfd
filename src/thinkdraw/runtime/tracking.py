"""What a run records about itself: metrics, the environment, memory."""

from __future__ import annotations

import math
import os
import platform
import subprocess
import sys
from collections.abc import Collection, Mapping
from importlib import metadata
from pathlib import Path
from typing import Protocol, cast, runtime_checkable

import psutil

from thinkdraw.errors import UserError
from thinkdraw.runtime.files import atomic_write_text, write_error
from thinkdraw.runtime.formats import holds_value, name_file_in_errors, one_line
from thinkdraw.runtime.formats.sealed import seal_line, unseal_line
from thinkdraw.runtime.json_types import JsonMapping, JsonObject

GB = 1e9  # bytes


@runtime_checkable
class Scalar(Protocol):
    """A 0-dim tensor or a numpy scalar."""

    def item(self) -> object: ...


class MetricsLog:
    """`metrics.jsonl`: one JSON object per line, on disk before `append` returns.

    allow_nan: keys (the last part of a nested key) whose NaN or infinity is a valid value, such as "no verdict"; they are stored as
    null. Any other value that is not finite raises ValueError.
    """

    def __init__(self, path: Path | str, allow_nan: Collection[str] = ()) -> None:
        self.path = Path(path)
        self.allow_nan = frozenset(allow_nan)

    def append(self, row: JsonMapping) -> None:
        """Add one row.

        Values: numbers, strings, None, scalar tensors and arrays, lists and dicts of them.
        """
        line = seal_line(cast(JsonMapping, self._plain(row, "")))
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._drop_torn_line()
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise write_error(self.path, error) from error

    @staticmethod
    def read(path: Path | str, *, to_show: bool = False) -> list[JsonObject]:
        """Read all rows, and compare each with its digest.

        A last line that a killed run left unfinished is ignored. A missing file has no rows. Raises UserError that names a damaged line.
        to_show: see `parse_json`.
        """
        path = Path(path)
        if not path.exists():
            return []
        with name_file_in_errors(path, "Restore it, or move it away."):
            lines = path.read_bytes().split(b"\n")
        rows, last = [], -math.inf
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                rows.append(unseal_line(line, to_show=to_show))
                if not to_show:
                    last = _next_step(rows[-1].get("step"), last)
            except ValueError as error:
                if number == len(lines) and not holds_value(line):  # a run was killed while it wrote this line
                    break
                raise UserError(
                    f"{path} line {number} is not JSON as it was written ({one_line(error)}): the file was edited or "
                    "damaged. Restore it, or remove that line."
                ) from error
        return rows

    def truncate_after(self, step: int) -> None:
        """Drop rows whose "step" is greater than `step`: a resumed run writes them again."""
        if self.path.exists():
            rows = [row for row in self.read(self.path) if not _is_later(row.get("step"), step)]
            atomic_write_text(self.path, "".join(map(seal_line, rows)))

    def _drop_torn_line(self) -> None:
        """Rewrite the file if a killed run left its last line unfinished."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 1))
            torn = size > 0 and file.read(1) != b"\n"
        if torn:
            rows = self.read(self.path)
            atomic_write_text(self.path, "".join(map(seal_line, rows)))

    def _plain(self, value: object, key: str) -> object:
        if isinstance(value, Mapping):
            return {str(k): self._plain(v, f"{key}.{k}" if key else str(k)) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [self._plain(v, key) for v in value]
        if isinstance(value, Scalar):
            value = value.item()
        if isinstance(value, float) and not math.isfinite(value):
            if key.rpartition(".")[2] in self.allow_nan or key in self.allow_nan:
                return None
            raise ValueError(
                f"metric {key}={value}: not finite. Find where it arises, "
                f"or name {key!r} in allow_nan if it is a valid value."
            )
        return value


def _next_step(value: object, last: float) -> float:
    """Return a row's step. Raises ValueError where it is before the previous row's."""
    step = value if isinstance(value, int | float) else last
    if step < last:
        raise ValueError(f"step {step} after step {last}: its rows are there twice, or in another order")
    return step


def _is_later(value: object, step: int) -> bool:
    return isinstance(value, int | float) and value > step


def environment() -> JsonObject:
    """Describe what a reader needs to judge a number.

    That is Python, platform, CPU, memory, accelerator, versions and git commit. There are no host names, user names or paths.
    """
    packages = ("torch", "transformers", "accelerate", "peft", "thinkdraw")
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu_model(),
        "cores": psutil.cpu_count(logical=True),
        "ram_gb": round(psutil.virtual_memory().total / GB, 1),
        "accelerator": _accelerator(),
        "versions": {name: _version(name) for name in packages},
        "git_commit": _git_commit(),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.lower().startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _accelerator() -> str | None:
    torch = sys.modules.get("torch")  # a command that computes nothing should not pay for the import
    if torch is not None and torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    return None


def _git_commit() -> str | None:
    try:
        reply = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return reply.stdout.strip() if reply.returncode == 0 else None


class PeakMemory:
    """Resident memory of this process, in GB (1e9 bytes)."""

    def __init__(self) -> None:
        self._process = psutil.Process()

    def current_gb(self) -> float:
        """Return the resident memory now."""
        return self._process.memory_info().rss / GB

    def peak_gb(self) -> float:
        """Return the peak since the process started.

        The kernel keeps it, so nothing has to be sampled.
        """
        if sys.platform == "win32":
            return self._process.memory_info().peak_wset / GB
        import resource

        maxrss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        peak = maxrss if sys.platform == "darwin" else maxrss * 1024  # bytes on macOS, KiB elsewhere
        return max(peak / GB, self.current_gb())
