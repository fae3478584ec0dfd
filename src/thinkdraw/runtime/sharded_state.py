"""Tensors that are spread over processes, in a folder of safetensors files: written by all at once, read by any number.

torch's distributed checkpoints with their safetensors format; the default one keeps its index as a pickle.
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
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.tensor import DTensor, distribute_tensor

from thinkdraw.errors import UserError


@dataclass(frozen=True)
class Stored:
    """A tensor in such a folder that has not been read yet."""

    folder: Path
    key: str


def save_shards(folder: Path, tensors: Mapping[str, Tensor]) -> Future[Any]:
    """Copy this process's part of each tensor, and write the copies to `folder` while the caller goes on.

    All processes call this with the same keys. The future is done when every process has written; it raises what failed.
    """
    writer = HuggingFaceStorageWriter(str(folder), save_distributed=True)
    saving: Any = dcp.async_save(dict(tensors), storage_writer=writer, process_group=_own_group())
    return saving


@functools.cache
def _own_group() -> dist.ProcessGroup | None:
    """The writers agree with each other while training goes on, so they may not use its process group."""
    return dist.new_group(backend="gloo") if dist.is_initialized() else None


@torch.no_grad()
def restore(saved: Iterable[tuple[Tensor | Stored, Tensor]]) -> None:
    """Copy each saved tensor into the other of its pair, in place, whichever of the two are whole or spread.

    All processes call this with the same pairs. Raises UserError if a folder is missing, damaged or of other tensors.
    """
    stored: dict[Path, dict[str, Any]] = {}
    for value, into in saved:
        if isinstance(value, Stored):
            stored.setdefault(value.folder, {})[value.key] = into.detach()
        elif isinstance(into, DTensor):
            whole = value.to(into.device)
            into.copy_(distribute_tensor(whole, into.device_mesh, into.placements, src_data_rank=None))
        else:
            into.copy_(value)
    for folder, tensors in stored.items():
        try:
            dcp.load(
                tensors,
                storage_reader=HuggingFaceStorageReader(str(folder)),
                no_dist=not dist.is_initialized(),
            )
        except (OSError, RuntimeError, ValueError, KeyError, dcp.CheckpointException) as error:
            raise UserError(
                f"no readable trainer state in {folder} ({type(error).__name__}: {' '.join(str(error).split())[:200]}). "
                "Resume from an earlier checkpoint, or start a new run from its weights."
            ) from error
