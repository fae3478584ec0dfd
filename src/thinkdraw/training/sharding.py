"""FSDP2: trained weights, gradients and moments in shards, one per process.

Learning gathers a layer's weights when a pass reaches it (torch's `fully_shard`), and adds its gradients up into shards.
Sampling would gather every layer for every token. So the policy has a *twin*: the same modules without FSDP's hooks, whose
weights are gathered once per rollout phase and dropped after it. Frozen weights are whole, and twin and policy share them.
"""

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from thinkdraw.errors import UserError
from thinkdraw.types import Policy, Prompt, Sampling


class ShardedPolicy:
    """A policy with its trained weights in shards, over `size` processes.

    Its network becomes torch's FSDP module.
    Shards are fp32; they are gathered in the dtype that the weights had. Raises UserError for what cannot be sharded.
    """

    def __init__(self, policy: Policy, size: int) -> None:
        self.policy = policy
        trained = _trained(policy.network)
        self._dtype = next(iter(trained.values())).dtype
        # The twin is a deep copy, in which whatever is in `memo` is replaced: shared things by themselves, and trained
        # weights by empty ones, which `full_weights` fills.
        shared: list[Any] = [policy.text, *policy.network.parameters(), *policy.network.buffers()]
        memo: dict[int, Any] = {id(thing): thing for thing in shared}
        memo |= {id(weight): nn.Parameter(weight.new_empty(0), requires_grad=False) for weight in trained.values()}
        self._twin = copy.deepcopy(policy.network, memo)
        self._twin_weights = {name: memo[id(weight)] for name, weight in trained.items()}
        _shard(policy.network, policy.blocks, self._dtype, _mesh(policy.device, size))
        self._shards: dict[str, Any] = _sharded(policy.network, trained.keys(), size)
        if policy.has_adapters:
            # The reference is the model with its adapters off: its weights are frozen, and so whole on every process.
            policy.make_reference(self._twin)
        self._has_full_weights = False

    @contextmanager
    def full_weights(self) -> Iterator[None]:
        """Give each process all weights inside the block: to sample, score and save.

        They are gathered once, on entering.
        All processes enter together; inside, none needs the others. Learning happens outside.
        """
        if self._has_full_weights:
            yield
            return
        sharded, self._has_full_weights = self.policy.network, True
        try:
            self._gather()
            self.policy.network = self._twin
            yield
        finally:
            self.policy.network, self._has_full_weights = sharded, False
            for weight in self._twin_weights.values():
                weight.data = weight.new_empty(0)

    @torch.no_grad()
    def _gather(self) -> None:
        for name, weight in self._twin_weights.items():
            weight.data = self._shards[name].detach().to(self._dtype).full_tensor()
            torch.autograd.graph.increment_version(weight)  # by which `policy.revision` sees that weights changed

    def run_empty_passes(self, passes: int, sampling: Sampling) -> None:
        """Make forward and backward passes that add nothing to the gradient.

        In every pass a process gathers shards from all others. So FSDP processes must make as many passes as the busiest,
        or they wait for each other forever; one with fewer micro-batches makes empty passes.
        """
        nothing = Prompt(text="nothing", id="nothing")
        codes = torch.zeros(1, self.policy.picture.num_tokens, dtype=torch.long)
        for _ in range(passes):
            rollouts = self.policy.teacher_forced([nothing], [nothing.text], codes, sampling)
            log_probs: Any = self.policy.log_probs(rollouts).log_probs
            log_probs.backward(torch.zeros_like(log_probs))


def _trained(network: nn.Module) -> dict[str, nn.Parameter]:
    trained = {n: p for n, p in network.named_parameters(remove_duplicate=False) if p.requires_grad}
    names: dict[int, str] = {}
    for name, weight in trained.items():
        if (first := names.setdefault(id(weight), name)) != name:
            raise UserError(
                f"sharding=fsdp2: {first} and {name} are one tied weight, which sharding would untie. Set sharding=none."
            )
    if len(dtypes := {str(p.dtype) for p in trained.values()}) != 1:
        raise UserError(
            f"sharding=fsdp2 needs trained weights of one dtype, but they have {sorted(dtypes)}. Set sharding=none."
        )
    return trained


def _mesh(device: torch.device, size: int) -> DeviceMesh:
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"sharding=fsdp2 runs on cuda and cpu, not on {device.type}. Set sharding=none.")
    if not dist.is_initialized():  # one process that was started without torchrun
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)  # pyright: ignore[reportPrivateImportUsage]
    return init_device_mesh(device.type, (size,))


def _shard(network: nn.Module, layers: Iterable[nn.Module], dtype: torch.dtype, mesh: DeviceMesh) -> None:
    """Shard each layer with `fully_shard`, and the rest of the network as one more.

    Gradients are added and not averaged: losses divide by counts over all processes.
    """
    precision = MixedPrecisionPolicy(
        param_dtype=None if dtype == torch.float32 else dtype, reduce_dtype=torch.float32, cast_forward_inputs=False
    )
    frozen = {weight for weight in network.parameters() if not weight.requires_grad}
    for module in (*layers, network):
        _to_fp32(module)
        fully_shard(module, mesh=mesh, mp_policy=precision, ignored_params=frozen)
        assert isinstance(module, FSDPModule)
        module.set_gradient_divide_factor(1.0)
        module.set_force_sum_reduction_for_comms(True)  # gloo cannot scale while it adds


def _to_fp32(module: nn.Module) -> None:
    """Replace trained weights of another dtype, unless they are shards, by fp32 ones."""
    for submodule in module.modules():
        for name, weight in list(submodule.named_parameters(recurse=False)):
            if weight.requires_grad and weight.dtype != torch.float32 and not isinstance(weight, DTensor):
                submodule.register_parameter(name, nn.Parameter(weight.detach().float()))


def _sharded(network: nn.Module, trained: Iterable[str], size: int) -> dict[str, Tensor]:
    """Collect the sharded weights.

    Raises UserError unless they are exactly the trained ones, each over `size` processes.
    """
    shards = {n: p for n, p in network.named_parameters() if isinstance(p, DTensor)}
    wrong = sorted(set(trained) ^ shards.keys()) or [n for n, p in shards.items() if p.device_mesh.size() != size]
    if wrong:
        raise UserError(
            f"sharding=fsdp2: {len(wrong)} weights are not sharded over {size} processes as they should be, {wrong[0]} the "
            "first. Set sharding=none."
        )
    return dict(shards)
