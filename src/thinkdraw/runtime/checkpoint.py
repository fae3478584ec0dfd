"""Checkpoints: which folders are complete, and trainer state without pickle.

A checkpoint is `checkpoints/step_000100/`: a Hugging Face model folder, the trainer state, and `complete.json`, which is written
last. A folder without `complete.json` is not a checkpoint. Sharded tensors of the state are in the folder `trainer_state`, which
any number of processes can read.
"""

from __future__ import annotations

import hashlib
import math
import re
import shutil
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch.distributed.tensor import DTensor

from thinkdraw.errors import UserError
from thinkdraw.runtime.files import atomic_directory, atomic_file, atomic_write_json
from thinkdraw.runtime.formats import name_file_in_errors, read_json_object, read_safetensors
from thinkdraw.runtime.formats.sealed import read_sealed, write_sealed
from thinkdraw.runtime.sharded_state import PendingWrite, StoredTensor, save_shards

State: TypeAlias = dict[str, Any]  # what a checkpoint holds: numbers, texts and tensors, in dicts and lists of these
MARKER = "complete.json"
_LFS = b"version https://git-lfs"  # how a file begins that git-lfs has not fetched
STATE_FILE = "trainer_state.json"
_TENSORS, _SHARDS = "trainer_state.safetensors", "trainer_state"


def save_trainer_state(directory: Path | str, state: State, is_main: bool = True) -> PendingWrite | None:
    """Write nested dicts and lists: tensors to safetensors, the rest to JSON.

    Dict keys: strings or ints. Values: tensors, numbers, strings and None. Raises TypeError that names where anything else is, and
    UserError if the disk refuses. With sharded tensors (DTensor) all processes call this: each writes its shards, and the main process
    writes the rest. The shards are then still being written when this returns.
    """
    directory = Path(directory)
    tensors: dict[str, torch.Tensor] = {}
    rest = _encode(state, "state", tensors)
    shards = {where: tensor for where, tensor in tensors.items() if isinstance(tensor, DTensor)}
    if is_main:
        _save_whole(directory, rest, {where: t for where, t in tensors.items() if where not in shards})
    return save_shards(directory / _SHARDS, shards) if shards else None


def _save_whole(directory: Path, rest: object, tensors: dict[str, torch.Tensor]) -> None:
    try:
        with atomic_file(directory / _TENSORS) as temporary:
            save_file(_unshare(tensors), temporary)
    except SafetensorError as error:
        raise UserError(
            f"cannot write {directory / _TENSORS}: {error}. Free space on that disk or choose another folder."
        ) from error
    atomic_write_json(directory / STATE_FILE, rest)


def load_trainer_state(directory: Path | str) -> State:
    """Read what `save_trainer_state` wrote, tensors on the CPU.

    Sharded tensors come as `StoredTensor`, which `restore` reads. Raises UserError if the state is missing or damaged.
    """
    directory = Path(directory)
    check_digests(directory)
    way_out = (
        "It holds no readable trainer state: resume from an earlier checkpoint, or start a new run from its weights."
    )
    tensors = read_safetensors(directory / _TENSORS, way_out)
    rest = read_json_object(directory / STATE_FILE, way_out)
    with name_file_in_errors(directory / STATE_FILE, way_out):
        return _decode(rest, tensors, directory / _SHARDS)


def _encode(value: object, where: str, tensors: dict[str, torch.Tensor]) -> object:
    """Convert `value` to JSON, and collect its tensors in `tensors` under `where`.

    What JSON lacks becomes {"__tag__": …}.
    """
    if isinstance(value, DTensor):
        tensors[where] = value.detach()
        return {"__sharded__": where}
    if isinstance(value, torch.Tensor):
        tensors[where] = value.detach().cpu().contiguous()
        return {"__tensor__": where}
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return {"__float__": repr(value)}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        items = [_encode(item, f"{where}.{i}", tensors) for i, item in enumerate(value)]
        return items if isinstance(value, list) else {"__tuple__": items}
    if isinstance(value, dict):
        pairs = [(key, _encode(item, f"{where}.{key!r}", tensors)) for key, item in value.items()]
        if all(isinstance(key, str) and not key.startswith("__") for key in value):
            return dict(pairs)
        if all(isinstance(key, str | int) for key in value):
            return {"__dict__": [list(pair) for pair in pairs]}
        raise TypeError(f"{where} has keys other than strings and ints: {list(value)[:3]}. Convert them before saving.")
    raise TypeError(
        f"{where} is a {type(value).__name__}: trainer state holds tensors, numbers, strings, lists and dicts."
    )


def _unshare(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Give each tensor its own storage: safetensors refuses shared storage.

    Tied weights share theirs, for example.
    """
    seen: set[int] = set()
    unshared = {}
    for name, tensor in tensors.items():
        pointer = tensor.untyped_storage().data_ptr()
        unshared[name] = tensor.clone() if pointer in seen else tensor
        seen.add(pointer)
    return unshared


def _decode(value: Any, tensors: dict[str, torch.Tensor], shards: Path) -> Any:
    if isinstance(value, list):
        return [_decode(item, tensors, shards) for item in value]
    if not isinstance(value, dict):
        return value
    if "__tensor__" in value:
        return tensors[value["__tensor__"]]
    if "__sharded__" in value:
        return StoredTensor(shards, value["__sharded__"])
    if "__float__" in value:
        return float(value["__float__"])
    if "__tuple__" in value:
        return tuple(_decode(item, tensors, shards) for item in value["__tuple__"])
    if "__dict__" in value:
        return {key: _decode(item, tensors, shards) for key, item in value["__dict__"]}
    return {key: _decode(item, tensors, shards) for key, item in value.items()}


@contextmanager
def write_checkpoint(run_dir: Path | str, step: int) -> Iterator[Path]:
    """Yield a folder to save into; at the end it becomes a complete checkpoint.

    The folder is then `checkpoints/step_%06d`, with the digest of each file in `complete.json`.
    """
    with atomic_directory(Path(run_dir) / "checkpoints" / f"step_{step:06d}") as directory:
        yield directory
        write_sealed(directory / MARKER, {"step": step, "files": _digests(directory, _files(directory))})


def check_digests(directory: Path | str) -> None:
    """Raise UserError unless a checkpoint's files are those that were written.

    Older checkpoints have no digests and pass. So does a folder that no run wrote, such as a published model.
    """
    directory = Path(directory)
    if not (directory / MARKER).is_file():
        return
    way_out = "Go on from an earlier checkpoint: remove this one."
    written = read_sealed(directory / MARKER, way_out).get("files") or {}
    with name_file_in_errors(directory, way_out):
        present = _digests(directory, [name for name in written if (directory / name).is_file()])
    for name, digest in written.items():
        if present.get(name) != digest:
            why = "is not what was written: a part of it is damaged" if name in present else "is missing"
            raise UserError(f"{directory / name} {why}. {way_out}")


def _files(directory: Path) -> list[str]:
    return sorted(str(p.relative_to(directory)) for p in directory.rglob("*") if p.is_file() and p.name != MARKER)


def _digests(directory: Path, names: Collection[str]) -> dict[str, str]:
    """Map names to the SHA-256 of their files."""

    def of(name: str) -> str:
        with (directory / name).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    with ThreadPoolExecutor(4) as pool:
        return dict(zip(names, pool.map(of, names)))


def checkpoint_step(checkpoint: Path | str) -> int | None:
    """Read the step from a name like step_000100; None for other names."""
    match = re.fullmatch(r"step_(\d{6,})", Path(checkpoint).name)
    return int(match[1]) if match else None


def _steps(run_dir: Path | str) -> list[tuple[int, Path]]:
    """List (step, folder) of all folders named like a checkpoint, complete or not."""
    folders = Path(run_dir, "checkpoints").glob("step_*")
    return sorted((step, f) for f in folders if f.is_dir() and (step := checkpoint_step(f)) is not None)


def latest_checkpoint(run_dir: Path | str) -> Path | None:
    """Return the complete checkpoint with the highest step, or None."""
    return max(((s, f) for s, f in _steps(run_dir) if (f / MARKER).is_file()), default=(0, None))[1]


def refuse_incomplete(what: str) -> None:
    """Raise UserError for a folder that cannot be a whole model.

    Looks at the files without loading them. what: kind and path, such as "policy runs/mine". A path that is no folder here passes.
    """
    folder = Path(what.partition(" ")[2])
    if not folder.is_dir():
        return
    if (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file():
        settings = _json_of(folder / "adapter_config.json")
        raise UserError(
            f"{what} holds adapters (adapter_config.json) without the model that they belong to, "
            f"{settings.get('base_model_name_or_path') or 'which they do not name'}. Merge them into it (peft's "
            "merge_and_unload, then save_pretrained), or give a run folder, whose checkpoints are whole."
        )
    for file in sorted(file for file in folder.iterdir() if file.is_file()):
        with file.open("rb") as opened:
            if opened.read(len(_LFS)) == _LFS:
                raise UserError(
                    f"{what}: {file.name} is a git-lfs pointer of {file.stat().st_size} bytes and not the file itself. Run "
                    "`git lfs install && git lfs pull` in that folder, or download it again."
                )
    for index in sorted(folder.glob("*.index.json")):
        shards = {str(name) for name in dict(_json_of(index).get("weight_map") or {}).values()}
        if absent := sorted(name for name in shards if not (folder / name).is_file()):
            raise UserError(
                f"{what}: {index.name} names {len(shards)} files and {len(absent)} of them are not there, {absent[0]} first. "
                "Copy or download it again."
            )


def _json_of(file: Path) -> State:
    """Read a JSON object; {} for a damaged file, whose loader says what is wrong."""
    with suppress(UserError):
        return read_json_object(file, "")
    return {}


def prune_checkpoints(run_dir: Path | str, keep: int, also_keep: Collection[str] = ()) -> list[str]:
    """Delete old checkpoints and return their names.

    Keeps the newest `keep` complete ones and those named in `also_keep`. Incomplete folders older than the newest complete checkpoint
    are deleted too; newer ones are left alone, because a process may still be writing them.
    """
    if keep < 1:
        raise ValueError(f"keep={keep}: pruning must leave at least one checkpoint to resume from. Use keep=1 or more.")
    complete = [f for _, f in _steps(run_dir) if (f / MARKER).is_file()]
    if not complete:
        return []
    kept = {f.name for f in complete[-keep:]} | set(also_keep)
    newest = checkpoint_step(complete[-1]) or 0
    doomed = [f for step, f in _steps(run_dir) if step <= newest and f.name not in kept]
    for folder in doomed:
        (folder / MARKER).unlink(missing_ok=True)  # first, so that a killed deletion leaves no "complete" half
        shutil.rmtree(folder)
    return [f.name for f in doomed]
