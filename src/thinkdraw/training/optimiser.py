"""An optimiser step: AdamW on fp32 sums of gradients, of whole or sharded weights."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from thinkdraw.errors import UserError
from thinkdraw.policies.sampling.memory import shrink_to_fit
from thinkdraw.runtime.checkpoint import State
from thinkdraw.runtime.fingerprint import fingerprints
from thinkdraw.runtime.sharded_state import restore
from thinkdraw.training.settings import OptimiserSettings
from thinkdraw.training.sharding import ShardedPolicy
from thinkdraw.training.world import World
from thinkdraw.types import Policy, Sampling

T = TypeVar("T")


class Trainable(Protocol):
    """What is trained: a policy, or a judge.

    network: the module whose weights are trained, those with `requires_grad`.
    """

    network: nn.Module

    @property
    def revision(self) -> str: ...

    def checkpoint_layers(self) -> None: ...

    def save(self, directory: Path) -> None: ...


class Optimiser:
    """AdamW on fp32 master copies of the trained weights.

    bf16 has 8 bits of precision: a step of AdamW is often smaller than half its spacing, and would be rounded away. So
    gradients of all micro-batches are summed in fp32 into the masters' `.grad`, `step` updates the masters, and the weights
    in use are copied from them. An fp32 weight that is not offloaded is its own master; frozen weights have none.
    Masters, gradients and moments are on the policy's device, or with `settings.offload` on the CPU.
    With sharding=fsdp2 the trained weights become fp32 shards, and so do masters, gradients and moments.
    """

    def __init__(self, policy: Trainable, settings: OptimiserSettings, world: World) -> None:
        self.settings, self.world, self.policy = settings, world, policy
        # Frozen weights too, and before sharding: after it each process would hold a shard of possibly different weights.
        self._refuse_differences("the weights at the start", dict(policy.network.named_parameters()))
        self.micro_rows: int | None = None  # rows per micro-batch that fit, once memory has run out
        self.sharded = ShardedPolicy(_whole_policy(policy), world.size) if world.sharding == "fsdp2" else None
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

    def refuse_differences(self, step: int) -> None:
        """Raise UserError if trained weights differ between processes.

        Must be called inside `full_weights`.
        """
        network = self.policy.network
        trained = {n: network.get_parameter(n) for n in self.weights} if self.sharded else self.masters
        self._refuse_differences(f"the weights after step {step}", trained)

    def _refuse_differences(self, what: str, weights: Mapping[str, Tensor]) -> None:
        if self.world.size > 1:
            way_out = (
                "All must open the same files, and what begins at random must draw from torch's global generators. Where "
                "they began alike, resume from the last checkpoint, and look at the machine of the one that differs."
            )
            self.world.refuse_differences(what, fingerprints(weights), way_out)

    def full_weights(self) -> AbstractContextManager[None]:
        """Give each process all weights inside the block: to sample, score and save.

        See `ShardedPolicy.full_weights`.
        """
        return self.sharded.full_weights() if self.sharded else nullcontext()

    @contextmanager
    def learning(self, passes: int, sampling: Sampling | None) -> Iterator[None]:
        """Put the network into training mode inside the block, for the passes of a step.

        passes: how many this process will make. With shards all processes must make as many passes as the busiest, so the
        others end with empty ones.
        """
        most = int(self.world.maximum(passes)) if self.sharded else passes
        self.policy.network.train()
        yield
        if self.sharded:
            assert sampling is not None, "recipes that can shard say how rollouts are sampled"
            self.sharded.run_empty_passes(most - passes, sampling)
        self.policy.network.eval()

    def collect(
        self, backward: Callable[[int], T], micro_rows: int, num_micro: Callable[[int], int], sampling: Sampling | None
    ) -> T:
        """Collect this process's gradients of one optimiser step.

        backward: rows per micro-batch → runs all backward passes; its result is returned.
        If memory runs out it begins again with half the rows per micro-batch, and stays there: any number gives the same
        gradient. Not with shards, where all processes would have to begin again together.
        num_micro: rows per micro-batch → number of micro-batches that `backward` makes of this process's rows.
        sampling: how rollouts are sampled, for the empty passes of shards.
        """

        def attempt(rows: int) -> T:
            for weight in (*self.weights.values(), *self.masters.values()):
                weight.grad = None
            with self.learning(num_micro(rows), sampling):
                return backward(rows)

        rows = min(micro_rows, self.micro_rows or micro_rows)
        if self.sharded:
            return attempt(rows)
        result, self.micro_rows = shrink_to_fit(attempt, rows, "rows per pass")
        return result

    def reduce_gradients(self) -> None:
        """Add up the gradients of all processes; one without rows adds zero.

        Gradients of shards have been added up already, by torch, in each backward pass.
        """
        for master in self.masters.values():
            if master.grad is None:
                master.grad = torch.zeros_like(master)
            if self.sharded is None:
                self.world.reduce(master.grad)

    def step(self, step: int, progress: float) -> tuple[float, float]:
        """Add up gradients over processes, clip them, update the weights, clear gradients.

        Returns (gradient norm before clipping, learning rate).
        step: optimiser steps done before. progress: 0..1 of the run; the learning rate follows from both.
        """
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
        # torch's fused AdamW does not count up its weights' versions, by which `policy.revision` sees that they changed.
        torch.autograd.graph.increment_version(self.masters.values())
        self.optimizer.zero_grad(set_to_none=True)
        self._write_back()
        return norm, rate

    def _clip(self) -> float:
        """Clip the gradient by its norm over all weights and shards.

        Returns the norm before clipping.
        """
        norm = torch.nn.utils.get_total_norm([m.grad for m in self.masters.values() if m.grad is not None])
        norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
        torch.nn.utils.clip_grads_with_norm_(self.masters.values(), self.settings.max_grad_norm, norm)
        return float(norm)

    def _write_back(self) -> None:
        """Copy the masters into the weights in use, in their dtype and on their device."""
        with torch.no_grad():
            for name, weight in self.weights.items():
                if weight is not self.masters[name]:
                    weight.copy_(self.masters[name])

    def state_dict(self) -> State:
        """Collect masters and moments for a checkpoint.

        The saved model is no substitute for the masters: it may be in bf16, or have its adapters merged.
        """
        return {"weights": {n: m.detach() for n, m in self.masters.items()}, "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: State) -> None:
        """Load a saved state, of any number of processes, sharded or not."""
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
    """Make the fp32 copy that AdamW updates, or take the weight itself if it is fp32."""
    if offload:
        return weight.detach().to("cpu", torch.float32, copy=True)
    return weight if weight.dtype == torch.float32 else weight.detach().float()


def _move_gradient(weight: Tensor, master: Tensor) -> None:
    """Add a weight's gradient to its master's in fp32, and free it.

    A hook of the weight, after every backward pass.
    """
    assert weight.grad is not None
    gradient = weight.grad.to(master.device, torch.float32)
    master.grad = gradient if master.grad is None else master.grad.add_(gradient)
    weight.grad = None
