"""AdamW over whatever is trained: fp32 copies, gradients of many micro-batches and processes, shards."""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from thinkdraw.errors import UserError
from thinkdraw.policies.sampling.memory import until_it_fits
from thinkdraw.runtime.checkpoint import State
from thinkdraw.runtime.sharded_state import restore
from thinkdraw.training.settings import OptimiserSettings
from thinkdraw.training.sharding import Sharded
from thinkdraw.training.world import World
from thinkdraw.types import Policy, Sampling

T = TypeVar("T")


class Trainable(Protocol):
    """What is trained: a policy, or a judge. network: the module whose weights with a gradient are stepped."""

    network: nn.Module

    @property
    def revision(self) -> str: ...

    def checkpoint_layers(self) -> None: ...

    def save(self, directory: Path) -> None: ...


class Optimiser:
    """AdamW on fp32 copies of the trained weights (the weights themselves where they are fp32 and stay where they are).

    Gradients of all micro-batches are summed into the copies' `.grad` in fp32; frozen weights have neither. The copies, and
    with them gradients and moments, are on the policy's device, or with `settings.offload` on the CPU.
    With sharding=fsdp2 the policy's trained weights become fp32 shards, and so does all that is made of them.
    """

    def __init__(self, policy: Trainable, settings: OptimiserSettings, world: World) -> None:
        self.settings, self.world, self.policy = settings, world, policy
        self.micro_rows: int | None = None  # what memory holds, once it has run out
        self.sharded = Sharded(_whole_policy(policy), world.size) if world.sharding == "fsdp2" else None
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
        most = int(self.world.highest(passes)) if self.sharded else passes
        self.policy.network.train()
        yield
        if self.sharded:
            assert sampling is not None, "recipes that can shard say how rollouts are sampled"
            self.sharded.keep_company(most - passes, sampling)
        self.policy.network.eval()

    def collect(
        self, backward: Callable[[int], T], micro_rows: int, num_micro: Callable[[int], int], sampling: Sampling | None
    ) -> T:
        """Collect the gradients of one optimiser step; returns what `backward(micro_rows)` does, which adds them up.

        Where memory runs out it begins again with half the rows per micro-batch, and that is kept: any number gives the
        same gradient. Not in shards, where all processes would have to begin again.
        num_micro: rows per micro-batch → how many `backward` makes of them here. sampling: what shards pass the time with.
        """

        def attempt(rows: int) -> T:
            for weight in (*self.weights.values(), *self.masters.values()):
                weight.grad = None
            with self.learning(num_micro(rows), sampling):
                return backward(rows)

        rows = min(micro_rows, self.micro_rows or micro_rows)
        if self.sharded:
            return attempt(rows)
        result, self.micro_rows = until_it_fits(attempt, rows, "rows per pass")
        return result

    def reduce_gradients(self) -> None:
        """Add the gradients of all processes; where a process had no row, its gradient is zero. Shards are sums already."""
        for master in self.masters.values():
            if master.grad is None:
                master.grad = torch.zeros_like(master)
            if self.sharded is None:
                self.world.reduce(master.grad)

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

    def state_dict(self) -> State:
        """The fp32 weights too: a merged or bf16 model folder does not hold what training goes on from."""
        return {"weights": {n: m.detach() for n, m in self.masters.items()}, "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: State) -> None:
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


def _whole_policy(trained: Trainable) -> Policy:
    return trained  # pyright: ignore[reportReturnType]  recipes that can shard train policies


def _master(weight: Tensor, offload: bool) -> Tensor:
    if offload:
        return weight.detach().to("cpu", torch.float32, copy=True)
    return weight if weight.dtype == torch.float32 else weight.detach().float()


def _move_gradient(weight: Tensor, master: Tensor) -> None:
    assert weight.grad is not None
    gradient = weight.grad.to(master.device, torch.float32)
    master.grad = gradient if master.grad is None else master.grad.add_(gradient)
    weight.grad = None
