"""Sharded tensors in a folder of safetensors files.

All processes write at once, and any number of processes can read. Uses torch's distributed checkpoints with their safetensors
format, because the default format keeps its index as a pickle, which runs code when it is loaded.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors import SafetensorError
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import async_save
from torch.distributed.tensor import DTensor, distribute_tensor

from thinkdraw.errors import UserError


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in such a folder that has not been read yet."""

    folder: Path
    key: str


@dataclass(frozen=True)
class PendingWrite:
    """A folder of sharded tensors that is still being written."""

    folder: Path
    saving: Future[Any]

    def done(self) -> bool:
        """Tell whether every process has written its shards, or one has failed."""
        return self.saving.done()

    def wait(self) -> None:
        """Wait for the end. Raises UserError if a process could not write its shards."""
        try:
            self.saving.result()
        except (OSError, RuntimeError, SafetensorError, CheckpointException) as error:
            raise UserError(f"cannot write {self.folder}: {_line(error)}. Free space on that disk.") from error


def save_shards(folder: Path, tensors: Mapping[str, Tensor]) -> PendingWrite:
    """Copy this process's shards, and write the copies while the caller goes on.

    All processes call this with the same keys.
    """
    writer = HuggingFaceStorageWriter(str(folder), save_distributed=True)
    saving: Any = async_save(dict(tensors), storage_writer=writer, process_group=_writers(dist.group.WORLD))
    return PendingWrite(folder, saving)


@functools.cache
def _writers(training: dist.ProcessGroup | None) -> Any:
    """Make the writers' own process group, so that training may communicate meanwhile."""
    return None if training is None else dist.new_group(backend="gloo")


@torch.no_grad()
def restore(saved: Iterable[tuple[Tensor | StoredTensor, Tensor]]) -> None:
    """Copy each saved tensor into the second of its pair, in place.

    Either of the two may be whole or sharded. All processes call this with the same pairs. Raises UserError if a folder is missing,
    damaged or holds other tensors.
    """
    stored: dict[Path, dict[str, Any]] = {}
    for value, into in saved:
        if isinstance(value, StoredTensor):
            stored.setdefault(value.folder, {})[value.key] = into.detach()
        elif isinstance(into, DTensor):
            whole = value.to(into.device)
            into.copy_(distribute_tensor(whole, into.device_mesh, into.placements, src_data_rank=None))
        else:
            into.copy_(value)
    for folder, tensors in stored.items():
        try:
            load(
                tensors,
                storage_reader=HuggingFaceStorageReader(str(folder)),
                no_dist=not dist.is_initialized(),
            )
        except (OSError, RuntimeError, ValueError, KeyError, SafetensorError, CheckpointException) as error:
            raise UserError(
                f"no readable trainer state in {folder} ({_line(error)}). "
                "Resume from an earlier checkpoint, or start a new run from its weights."
            ) from error


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[-200:]}"
