"""The processes of a run, and what they tell each other.

Data parallelism is an explicit all-reduce of summed gradients, once per optimiser step, and not DDP: losses are divided
by *global* token counts, so gradients have to be added and not averaged; processes may have different numbers of
micro-batches (their rows differ in length, some have no verdict); and sampling needs the bare module between steps.
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
    """The processes of a run. Every method that adds or gathers must be called by all of them."""

    def __init__(self, config: TrainSettings) -> None:
        device = pick_device(config.device)
        if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true":
            raise UserError(
                "accelerate was told to use FSDP, and would not do so here. Start without --use_fsdp, and set sharding=fsdp2."
            )
        if device.index is not None and int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise UserError(
                f"device={device}, and each of several processes computes on a GPU of its own. Say device=cuda, and choose "
                "the GPUs by CUDA_VISIBLE_DEVICES."
            )
        if device.index is not None:
            torch.cuda.set_device(device)  # for memory and streams, which are those of the current GPU
        waits = InitProcessGroupKwargs(timeout=timedelta(seconds=config.patience_s))
        self.accelerator = Accelerator(cpu=device.type == "cpu", kwargs_handlers=[waits])
        set_threads(config.num_threads)  # last, for accelerate sets them too where OMP_NUM_THREADS is not set
        self.sharding = config.sharding
        self.rank, self.size = self.accelerator.process_index, self.accelerator.num_processes
        self.device = self.accelerator.device if device.index is None else device  # accelerate knows no number
        self.is_main = self.accelerator.is_main_process
        asked = config.num_processes or int(os.environ.get("WORLD_SIZE", "1"))
        if self.size != asked:
            raise UserError(
                f"found {self.size} processes where {asked} were asked for: this would train {asked} models. "
                f"Start with `torchrun --nproc_per_node {asked}`; `accelerate launch --cpu` starts independent jobs."
            )
        atexit.unregister(_leave_gloo)
        atexit.register(_leave_gloo)

    def share(self, count: int) -> range:
        """Which of `count` things in order are this process's: contiguous, the processes' shares equal up to one."""
        return range(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def sum(self, values: dict[str, float]) -> dict[str, float]:
        """Sums over processes; the keys must be the same everywhere."""
        total = self.reduce(torch.tensor(list(values.values()), dtype=torch.float64))
        return dict(zip(values, total.tolist()))

    def sum_by_name(self, values: Mapping[str, float]) -> dict[str, float]:
        """Sums over processes; one that had nothing to do may lack names, and adds 0 to them."""
        return self.sum({name: float(values.get(name, 0.0)) for name in self._names(values)})

    def maximum_by_name(self, values: Mapping[str, float]) -> dict[str, float]:
        """The largest of each over processes; values are ≥ 0, and a name that a process lacks counts as 0 there."""
        return {name: self.maximum(values.get(name, 0.0)) for name in self._names(values)}

    def _names(self, values: Mapping[str, float]) -> list[str]:
        """The names that any process has, in the same order everywhere."""
        return list(dict.fromkeys(name for names in self.gather(list(values)) for name in names))

    def maximum(self, value: float) -> float:
        """The largest value of any process."""
        return float(self.reduce(torch.tensor([value], dtype=torch.float64), dist.ReduceOp.MAX))

    def gather(self, value: T) -> list[T]:
        """The value of each process, by rank: numbers, texts, and what is made of them."""
        values = [value] * self.size
        if self.size > 1:
            dist.all_gather_object(values, value)
        return values

    def refuse_differences(self, what: str, values: Mapping[str, object], way_out: str) -> None:
        """Raise UserError, in every process, if these values are not the same in all of them; it names who differs."""
        everyone = self.gather(dict(values))
        others = [rank for rank, theirs in enumerate(everyone) if theirs != everyone[0]]
        if not others:
            return
        keys = dict.fromkeys(key for rank in (0, *others) for key in everyone[rank])
        differing = [key for key in keys if any(everyone[r].get(key) != everyone[0].get(key) for r in others)]
        who = f"process {others[0]} has" if len(others) == 1 else f"processes {', '.join(map(str, others))} have"
        first = ", ".join(f"{everyone[r].get(differing[0])}" for r in (0, others[0]))
        raise UserError(
            f"{what}: {who} others than process 0, in {len(differing)} of {len(keys)}, {differing[0]} first ({first}). {way_out}"
        )

    def gather_rows(self, rows: Tensor | None, mine: range, count: int) -> Tensor:
        """(count, G), the same everywhere: each process fills in its own lines and gets those of all.

        mine: this one's lines, of `share`. rows: (len(mine) · G,), their numbers one after the other; None without any.
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
        """Broadcast the main process's text to all of them."""
        box = [text]
        if self.size > 1:
            dist.broadcast_object_list(box, src=0)
        return box[0]

    def wait(self) -> None:
        """Wait until all processes are here."""
        self.accelerator.wait_for_everyone()


def _leave_gloo() -> None:
    """Close a Gloo process group at exit: its threads now and then abort an interpreter that ends before them.

    NCCL's groups end with the process.
    """
    if dist.is_initialized() and dist.get_backend() == "gloo":
        dist.destroy_process_group()
