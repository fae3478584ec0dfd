"""The processes of a run: sums, maxima and messages between them.

Data parallelism is an explicit all-reduce of summed gradients, once per optimiser step. It is not DDP, for three reasons.
Losses divide by *global* token counts, so gradients must be added and not averaged. Processes may have different numbers of
micro-batches, since rows differ in length and some have no verdict. And sampling needs the bare module between steps.
"""

import atexit
import os
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from accelerate import Accelerator, InitProcessGroupKwargs
from torch import Tensor

from thinkdraw.errors import UserError
from thinkdraw.runtime.device import pick_device, set_threads
from thinkdraw.training.settings import TrainSettings

T = TypeVar("T")


class World:
    """The processes of a run.

    Every method that communicates must be called by all of them, in the same order.
    """

    def __init__(self, config: TrainSettings) -> None:
        device = pick_device(config.device)
        if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true":
            raise UserError("accelerate's FSDP is not used here. Start without --use_fsdp, and set sharding=fsdp2.")
        if device.index is not None and int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise UserError(
                f"device={device} names one GPU, but each of several processes needs its own. Set device=cuda, and choose the "
                "GPUs by CUDA_VISIBLE_DEVICES."
            )
        if device.index is not None:
            torch.cuda.set_device(device)  # memory statistics and streams are those of the current GPU
        timeout = InitProcessGroupKwargs(timeout=timedelta(seconds=config.patience_s))
        self.accelerator = Accelerator(cpu=device.type == "cpu", kwargs_handlers=[timeout])
        set_threads(config.num_threads)  # after accelerate, which sets them too where OMP_NUM_THREADS is not set
        self.sharding = config.sharding
        self.rank, self.size = self.accelerator.process_index, self.accelerator.num_processes
        # accelerate would take the GPU of the local rank in place of the one with this number.
        self.device = self.accelerator.device if device.index is None else device
        self.is_main = self.accelerator.is_main_process
        expected = config.num_processes or int(os.environ.get("WORLD_SIZE", "1"))
        if self.size != expected:
            raise UserError(
                f"the run has {self.size} processes and not {expected}: {expected} separate models would be trained. "
                f"Start with `torchrun --nproc_per_node {expected}`; `accelerate launch --cpu` starts independent jobs."
            )
        atexit.unregister(_leave_gloo)
        atexit.register(_leave_gloo)

    def share(self, count: int) -> range:
        """Return this process's share of `count` things in order.

        Shares are contiguous, and equal up to one.
        """
        return range(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def sum(self, values: dict[str, float]) -> dict[str, float]:
        """Sum each value over processes; keys and their order must be the same everywhere."""
        total = self.reduce(torch.tensor(list(values.values()), dtype=torch.float64))
        return dict(zip(values, total.tolist()))

    def sum_by_name(self, values: Mapping[str, float]) -> dict[str, float]:
        """Sum each value over processes; a name that a process lacks counts as 0 there."""
        return self.sum({name: float(values.get(name, 0.0)) for name in self._names(values)})

    def maximum_by_name(self, values: Mapping[str, float]) -> dict[str, float]:
        """Take the maximum of each value over processes.

        Values are ≥ 0, and a name that a process lacks counts as 0 there.
        """
        return {name: self.maximum(values.get(name, 0.0)) for name in self._names(values)}

    def _names(self, values: Mapping[str, float]) -> list[str]:
        """Collect the names that any process has, in the same order everywhere."""
        return list(dict.fromkeys(name for names in self.gather(list(values)) for name in names))

    def maximum(self, value: float) -> float:
        """Take the maximum over processes."""
        return float(self.reduce(torch.tensor([value], dtype=torch.float64), dist.ReduceOp.MAX))

    def gather(self, value: T) -> list[T]:
        """Gather the values of all processes, by rank: numbers, texts, lists of these."""
        values = [value] * self.size
        if self.size > 1:
            dist.all_gather_object(values, value)
        return values

    def refuse_differences(self, what: str, values: Mapping[str, object], way_out: str) -> None:
        """Raise UserError, in every process, if these values differ between processes.

        It names the processes that differ from process 0.
        """
        by_rank = self.gather(dict(values))
        ranks = [rank for rank, theirs in enumerate(by_rank) if theirs != by_rank[0]]  # that differ from process 0
        if not ranks:
            return
        keys = dict.fromkeys(key for rank in (0, *ranks) for key in by_rank[rank])
        differing = [key for key in keys if any(by_rank[r].get(key) != by_rank[0].get(key) for r in ranks)]
        who = f"process {ranks[0]} differs" if len(ranks) == 1 else f"processes {', '.join(map(str, ranks))} differ"
        first = ", ".join(f"{by_rank[r].get(differing[0])}" for r in (0, ranks[0]))
        raise UserError(
            f"{what}: {who} from process 0 in {len(differing)} of {len(keys)}, {differing[0]} the first ({first}). {way_out}"
        )

    def gather_rows(self, rows: Tensor | None, mine: range, count: int) -> Tensor:
        """Gather a table, (count, G), of which each process has some rows.

        mine: this process's row indices, from `share`. rows: their numbers, (len(mine) · G,); None if it has no row.
        Returns the whole table, the same in every process: each adds its rows to a table of zeros.
        """
        width = int(self.maximum(0 if rows is None else len(rows) // len(mine)))
        table = torch.zeros(count, width, dtype=torch.float64)
        if rows is not None:
            table[mine.start : mine.stop] = rows.reshape(len(mine), width).double()
        return self.reduce(table)

    def reduce(self, tensor: Tensor, op: Any = dist.ReduceOp.SUM) -> Tensor:
        """All-reduce a tensor *in place*, and return it."""
        if self.size > 1:
            moved = tensor.to(self.device)
            dist.all_reduce(moved, op=op)
            tensor.copy_(moved)
        return tensor

    def broadcast(self, text: str) -> str:
        """Broadcast the main process's text; every process gets it."""
        box = [text]
        if self.size > 1:
            dist.broadcast_object_list(box, src=0)
        return box[0]

    def wait(self) -> None:
        """Wait until all processes have come here."""
        self.accelerator.wait_for_everyone()


def _leave_gloo() -> None:
    """Close a Gloo process group at exit.

    Its threads sometimes abort an interpreter that ends before them. NCCL's groups end with the process.
    """
    if dist.is_initialized() and dist.get_backend() == "gloo":
        dist.destroy_process_group()
