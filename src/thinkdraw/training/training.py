"""What the SFT and GRPO loops share: settings, processes and the optimiser.

Data parallelism is an explicit all-reduce of summed gradients, once per optimiser step, and not DDP: losses are divided
by *global* token counts, so gradients have to be added and not averaged; ranks may have different numbers of
micro-batches (their rows differ in length, some have no verdict); and sampling needs the bare module between steps.
With `sharding: fsdp2` the gradients are added shard by shard instead, see `sharding.py`.
"""

import atexit
import math
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import torch
import torch.distributed as dist
from accelerate import Accelerator, InitProcessGroupKwargs
from pydantic import Field, model_validator
from torch import Tensor
from torch.distributed.tensor import DTensor

from thinkdraw.config import StrictModel
from thinkdraw.errors import UserError
from thinkdraw.policies import load_policy
from thinkdraw.policies.lora import LoraSettings
from thinkdraw.policies.opening import policy_path
from thinkdraw.policies.sampling.memory import until_it_fits
from thinkdraw.runtime.device import pick_device, set_threads
from thinkdraw.runtime.sharded_state import restore
from thinkdraw.training.sharding import Sharded
from thinkdraw.types import Policy, Sampling

T = TypeVar("T")
Settings = TypeVar("Settings", bound="TrainSettings")


class OptimiserSettings(StrictModel):
    learning_rate: float = Field(default=1e-4, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = Field(default=1e-8, gt=0)
    warmup_steps: int = Field(default=5, ge=0, description="Optimiser steps over which the rate rises from 0.")
    schedule: Literal["constant", "linear", "cosine"] = Field(
        default="constant", description="After the warm-up, over the run's progress."
    )
    final_frac: float = Field(
        default=0.1, ge=0, le=1, description="Where linear and cosine end, as a share of learning_rate."
    )
    max_grad_norm: float = Field(default=1.0, gt=0)
    offload: bool = Field(
        default=False,
        description="Keep fp32 weights, gradients and moments in the machine's memory, and step there: slower, and an "
        "accelerator holds hardly more than the weights in use.",
    )

    def rate(self, step: int, progress: float) -> float:
        """Learning rate of the optimiser step after `step` steps. progress: 0..1 of the run."""
        left = {"constant": 1.0, "linear": 1 - progress, "cosine": (1 + math.cos(math.pi * min(1.0, progress))) / 2}[
            self.schedule
        ]
        warm = min(1.0, (step + 1) / (self.warmup_steps + 1))
        return self.learning_rate * warm * (self.final_frac + (1 - self.final_frac) * left)


class TrainSettings(StrictModel):
    """Fields of every recipe that trains a policy."""

    can_shard: ClassVar[bool] = False

    out: Path = Field(description="The run folder.")
    policy: str = Field(
        default="lab", description="Checkpoint folder, run folder (its best checkpoint), model id, or `lab`."
    )
    seed: int = Field(default=0, ge=0)
    device: str = Field(default="auto", description="auto, cpu, cuda or mps.")
    dtype: Literal["fp32", "bf16"] = Field(
        default="fp32", description="Of the weights in use; the optimiser's copy is fp32."
    )
    precision: Literal["fp32", "bf16"] = Field(
        default="bf16", description="Of the forward pass; bf16 is torch's autocast."
    )
    lora: LoraSettings | None = Field(default=None, description="Train adapters instead of all weights.")
    gradient_checkpointing: bool = Field(
        default=False, description="Recompute layers in the backward pass to save memory."
    )
    optimiser: OptimiserSettings = OptimiserSettings()
    micro_rows: int = Field(
        default=64, ge=1, description="Sequences per forward pass; any value gives the same gradient."
    )
    max_steps: int = Field(default=100, ge=1, description="Optimiser steps.")
    max_seconds: float | None = Field(
        default=None, gt=0, description="Stop here if sooner; the learning rate then follows the clock."
    )
    save_every: int = Field(default=20, ge=1, description="Optimiser steps between checkpoints.")
    keep_checkpoints: int = Field(default=2, ge=1, description="The newest ones; the best one is kept besides.")
    resume: bool = Field(default=True, description="Continue the run that `out` holds.")
    log_every: int = Field(default=10, ge=1, description="Steps per printed line where there is no terminal.")
    num_threads: int | None = Field(default=None, description="CPU threads; null follows OMP_NUM_THREADS.")
    num_processes: int | None = Field(
        default=None, ge=1, description="Refuse to start with another number; null: WORLD_SIZE."
    )
    sharding: Literal["none", "fsdp2"] = Field(
        default="none",
        description="fsdp2: trained weights, gradients and optimiser state are spread over the processes.",
    )
    patience_s: float = Field(
        default=600, gt=0, description="Seconds that a process waits for a silent one before it stops."
    )

    @model_validator(mode="after")
    def _recipe_can_shard(self) -> "TrainSettings":
        if self.sharding != "none" and not self.can_shard:
            raise ValueError(
                "sharding=fsdp2 is for recipes sft and grpo; this one trains whole weights: set it to none"
            )
        if self.sharding != "none" and self.optimiser.offload:
            raise ValueError("optimiser.offload=true is for whole weights: set sharding to none, or it to false")
        return self


class Team:
    """The processes of a run. Every method that adds or gathers must be called by all of them."""

    def __init__(self, config: TrainSettings) -> None:
        device = pick_device(config.device)
        if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true":
            raise UserError(
                "accelerate was told to use FSDP, and would not do so here. Start without --use_fsdp, and set sharding=fsdp2."
            )
        waits = InitProcessGroupKwargs(timeout=timedelta(seconds=config.patience_s))
        self.accelerator = Accelerator(cpu=device.type == "cpu", kwargs_handlers=[waits])
        set_threads(config.num_threads)  # last, for accelerate sets them too where OMP_NUM_THREADS is not set
        self.sharding = config.sharding
        self.rank, self.size = self.accelerator.process_index, self.accelerator.num_processes
        self.device, self.is_main = self.accelerator.device, self.accelerator.is_main_process
        asked = config.num_processes or int(os.environ.get("WORLD_SIZE", "1"))
        if self.size != asked:
            raise UserError(
                f"found {self.size} processes where {asked} were asked for: this would train {asked} models. "
                f"Start with `torchrun --nproc_per_node {asked}`; `accelerate launch --cpu` starts independent jobs."
            )
        atexit.unregister(_leave_gloo)
        atexit.register(_leave_gloo)

    def share(self, count: int) -> range:
        """This process's part of `count` things in order, contiguous, sizes equal up to one."""
        return range(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def add(self, values: dict[str, float]) -> dict[str, float]:
        """Sums over processes; the keys must be the same everywhere."""
        total = self.reduce(torch.tensor(list(values.values()), dtype=torch.float64))
        return dict(zip(values, total.tolist()))

    def highest(self, value: float) -> float:
        return float(self.reduce(torch.tensor([value], dtype=torch.float64), dist.ReduceOp.MAX))

    def gather(self, value: int) -> list[int]:
        counts = torch.zeros(self.size, dtype=torch.float64)
        counts[self.rank] = value
        return [int(n) for n in self.reduce(counts).tolist()]

    def add_rows(self, rows: Tensor | None, mine: range, count: int) -> Tensor:
        """(count, G) of every process, from this one's rows `mine`, (len(mine) · G,) flat or None without any."""
        width = int(self.highest(0 if rows is None else len(rows) // len(mine)))
        table = torch.zeros(count, width, dtype=torch.float64)
        if rows is not None:
            table[mine.start : mine.stop] = rows.reshape(len(mine), width).double()
        return self.reduce(table)

    def reduce(self, tensor: Tensor, op: Any = dist.ReduceOp.SUM) -> Tensor:
        if self.size > 1:
            moved = tensor.to(self.device)
            dist.all_reduce(moved, op=op)
            tensor.copy_(moved)
        return tensor

    def tell(self, text: str) -> str:
        """What the main process says, to all of them."""
        box = [text]
        if self.size > 1:
            dist.broadcast_object_list(box, src=0)
        return box[0]

    def wait(self) -> None:
        self.accelerator.wait_for_everyone()


def _leave_gloo() -> None:
    """Gloo's threads now and then abort an interpreter that ends before them. NCCL's groups end with the process."""
    if dist.is_initialized() and dist.get_backend() == "gloo":
        dist.destroy_process_group()


def open_policy(config: TrainSettings, team: Team) -> Policy:
    policy = load_policy(
        policy_path(config.policy),
        device=str(team.device),
        dtype=config.dtype,
        lora=config.lora,
        precision=config.precision,
    )
    if config.gradient_checkpointing:
        policy.checkpoint_layers()
    return policy


class Trainer:
    """AdamW on fp32 copies of the trained weights (the weights themselves where they are fp32 and stay where they are).

    Gradients of all micro-batches are summed into the copies' `.grad` in fp32; frozen weights have neither. The copies, and
    with them gradients and moments, are on the policy's device, or with `settings.offload` on the CPU.
    With sharding=fsdp2 the policy's trained weights become fp32 shards, and so does all that is made of them.
    """

    def __init__(self, policy: Policy, settings: OptimiserSettings, team: Team) -> None:
        self.settings, self.team, self.policy = settings, team, policy
        self.micro_rows: int | None = None  # what memory holds, once it has run out
        self.sharded = Sharded(policy, team.size) if team.sharding == "fsdp2" else None
        self.weights = {n: p for n, p in policy.network.named_parameters() if p.requires_grad}
        self.masters = {n: _master(p, settings.offload) for n, p in self.weights.items()}
        for name, weight in self.weights.items():
            if weight is not self.masters[name]:
                weight.register_post_accumulate_grad_hook(
                    lambda p, master=self.masters[name]: _move_gradient(p, master)
                )
        self.optimizer = torch.optim.AdamW(
            self.masters.values(),
            lr=settings.learning_rate,
            betas=settings.betas,
            eps=settings.eps,
            weight_decay=settings.weight_decay,
            fused=True,
        )

    def resident(self) -> AbstractContextManager[None]:
        """Inside, the weights are whole on every process, to sample with, to score and to save; see `Sharded`."""
        return self.sharded.resident() if self.sharded else nullcontext()

    @contextmanager
    def learning(self, passes: int, sampling: Sampling | None) -> Iterator[None]:
        """Inside, gradients are collected. passes: forward and backward passes that this process will make there."""
        most = int(self.team.highest(passes)) if self.sharded else passes
        self.policy.network.train()
        yield
        if self.sharded:
            assert sampling is not None, "recipes that can shard say how rollouts are sampled"
            self.sharded.keep_company(most - passes, sampling)
        self.policy.network.eval()

    def gradients(
        self,
        accumulate: Callable[[Settings], T],
        config: Settings,
        num_passes: Callable[[Settings], int] = lambda config: 0,
        sampling: Sampling | None = None,
    ) -> T:
        """Collect the gradients of one optimiser step; returns what `accumulate(config)` does, which adds them up.

        Where memory runs out it begins again with half of config.micro_rows, and that is kept: any number gives the same
        gradient. Not in shards, where all processes would have to begin again. num_passes, sampling: for `learning`.
        """

        def attempt(micro_rows: int) -> T:
            for weight in (*self.weights.values(), *self.masters.values()):
                weight.grad = None
            fitting = config.model_copy(update={"micro_rows": micro_rows})
            with self.learning(num_passes(fitting), sampling):
                return accumulate(fitting)

        micro_rows = min(config.micro_rows, self.micro_rows or config.micro_rows)
        if self.sharded:
            return attempt(micro_rows)
        found, self.micro_rows = until_it_fits(attempt, micro_rows, "rows per pass")
        return found

    def reduce_gradients(self) -> None:
        """Add the gradients of all processes; where a process had no row, its gradient is zero. Shards are sums already."""
        for master in self.masters.values():
            if master.grad is None:
                master.grad = torch.zeros_like(master)
            if self.sharded is None:
                self.team.reduce(master.grad)

    def step(self, step: int, progress: float) -> tuple[float, float]:
        """Sum over processes, clip, update, clear. Returns (gradient norm before clipping, learning rate)."""
        self.reduce_gradients()
        norm = self._clip()
        rate = self.settings.rate(step, progress)
        if not math.isfinite(norm):
            raise UserError(
                f"gradient norm {norm} at step {step + 1}: training has diverged. Resume from the last checkpoint with "
                f"a lower optimiser.learning_rate than {self.settings.learning_rate:g}, or precision=fp32."
            )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        # The fused step does not count as a change of its weights, by which the policy's revision knows that it is another.
        torch.autograd.graph.increment_version(self.masters.values())
        self.optimizer.zero_grad(set_to_none=True)
        self._write_back()
        return norm, rate

    def _clip(self) -> float:
        """The norm of the whole gradient, over all shards, before it is clipped."""
        norm = torch.nn.utils.get_total_norm([m.grad for m in self.masters.values() if m.grad is not None])
        norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
        torch.nn.utils.clip_grads_with_norm_(self.masters.values(), self.settings.max_grad_norm, norm)
        return float(norm)

    def _write_back(self) -> None:
        with torch.no_grad():
            for name, weight in self.weights.items():
                if weight is not self.masters[name]:
                    weight.copy_(self.masters[name])

    def state_dict(self) -> dict[str, Any]:
        """The fp32 weights too: a merged or bf16 model folder does not hold what training goes on from."""
        return {"weights": {n: m.detach() for n, m in self.masters.items()}, "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there, however many processes and whatever sharding it was saved with."""
        masters, saved = list(self.masters.values()), state["optimizer"]["state"]
        own = {
            i: {k: v if k == "step" else torch.empty_like(masters[i]) for k, v in values.items()}
            for i, values in saved.items()
        }
        moments = [(v, own[i][k]) for i, values in saved.items() for k, v in values.items() if k != "step"]
        restore([*((state["weights"][name], master) for name, master in self.masters.items()), *moments])
        self._write_back()
        self.optimizer.load_state_dict(state["optimizer"] | {"state": own})


def _master(weight: Tensor, offload: bool) -> Tensor:
    if offload:
        return weight.detach().to("cpu", torch.float32, copy=True)
    return weight if weight.dtype == torch.float32 else weight.detach().float()


def _move_gradient(weight: Tensor, master: Tensor) -> None:
    assert weight.grad is not None
    gradient = weight.grad.to(master.device, torch.float32)
    master.grad = gradient if master.grad is None else master.grad.add_(gradient)
    weight.grad = None
