"""What the tests of sharding start through torchrun: `python -m torch.distributed.run … -m tests.training.sharding_jobs FOLDER JOB…`."""

import dataclasses
import json
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from safetensors.torch import save_file
from tests.training.helpers import LowCodes, grpo_config, sft_config
from torch import Tensor
from torch.distributed.tensor import DTensor

from thinkdraw.errors import UserError
from thinkdraw.objectives import ADVANTAGES, SegmentCounts
from thinkdraw.policies.fast import chunked_head
from thinkdraw.policies.janus.policy import JanusPolicy
from thinkdraw.policies.lora import LoraSettings
from thinkdraw.recipes import grpo, preference, rejection, sft
from thinkdraw.recipes.phase.prompt_order import PromptOrder
from thinkdraw.recipes.phase.rollout import draw_seeds
from thinkdraw.recipes.preference import PreferenceConfig
from thinkdraw.recipes.rejection import RejectionConfig
from thinkdraw.training.batch import Batch
from thinkdraw.training.optimiser import Optimiser
from thinkdraw.training.run import backward, open_policy
from thinkdraw.training.world import World
from thinkdraw.types import Rollouts, Sampling, Verdicts

LORA = LoraSettings.model_validate({"rank": 2})
BATCHES: dict[str, dict[str, Any]] = {
    "plain": {},
    "bf16": {"dtype": "bf16"},
    "lora": {"lora": LORA, "beta": 0.1},
    "reference": {"beta": 0.1, "gradient_checkpointing": True},
    "rewrite": {"sampling": Sampling(max_thought_tokens=4, thought="rewrite", guidance_scale=2.0)},
}
RUN = {
    "max_steps": 2,
    "save_every": 1,
    "keep_checkpoints": 9,
    "minibatches": 1,
    "micro_rows": 3,
    "prompts_per_phase": 3,
}
RUN |= {"optimiser": {"learning_rate": 1e-4, "warmup_steps": 0}, "max_no_verdict_frac": 0.5}
RUN |= {"validation": {"every": 1, "prompts": {"split": "validation", "count": 3}}}


def batch_config(folder: Path, name: str, **changes: Any) -> grpo.GrpoConfig:
    return grpo_config(folder, str(folder / "policy"), micro_rows=3, **BATCHES[name] | changes)


def run_config(folder: Path, name: str, **changes: Any) -> grpo.GrpoConfig:
    return grpo_config(folder, str(folder / "policy"), **RUN | {"out": folder / name} | changes)


def sft_lora_config(folder: Path, name: str, sharding: str) -> sft.SftConfig:
    changes = {
        "out": folder / name,
        "sharding": sharding,
        "max_steps": 3,
        "save_every": 1,
        "keep_checkpoints": 9,
        "lora": LORA,
        "thought": "inline",
    }
    return sft_config(folder, str(folder / "policy"), micro_rows=2, batch_rows=7, **changes)


def batch(policy: JanusPolicy, config: grpo.GrpoConfig) -> Rollouts:
    """Three groups of four that the fresh policy draws, the same in every process."""
    prompts = PromptOrder.of(config.prompts, config.stages, config.seed, config.history).take(3, 0)
    return policy.sample(prompts, config.sampling, group_size=4, seeds=draw_seeds(0, 0, 0, 3, 4), decode=False)


def part_of(rollouts: Rollouts, groups: range) -> Batch:
    """Some groups of the batch, with fixed rewards; the one of row 5 is missing, so that processes have unequal rows."""
    rewards = torch.linspace(0, 1, len(rollouts)).square()
    rewards[5] = torch.nan
    rows = torch.arange(groups.start * 4, groups.stop * 4)
    advantages = ADVANTAGES["group"](rewards[rows], 4)
    return Batch(rollouts.select(rows, 4), Verdicts.of(rewards[rows]), advantages, groups=rows // 4)


def gradient(folder: Path, name: str, sharding: str) -> tuple[float, dict[str, Tensor]]:
    """Loss and gradients of the batch over all processes."""
    config = batch_config(folder, name, sharding=sharding)
    world = World(config)
    policy = open_policy(config, world)
    rollouts = batch(policy, config)
    policy.make_reference()
    with torch.no_grad():  # away from the sampler and the reference, so that ratios and distances have gradients
        for n, p in policy.network.named_parameters():
            if p.requires_grad:
                p.add_(0.02 * torch.randn(p.shape, generator=torch.Generator().manual_seed(len(n))))
    optimiser = Optimiser(policy, config.optimiser, world)
    part = part_of(rollouts, world.share(3))
    counts = SegmentCounts(**world.sum(dataclasses.asdict(part.counts())))
    loss = partial(grpo.grpo_loss, policy, counts=counts, entropy_coefs=(0.01, -0.02), config=config)
    at_once = 64 * 5 if name == "reference" else chunked_head.CHUNK_ELEMENTS  # a head's backward pass in parts
    with (
        optimiser.learning(part.num_micro(config.micro_rows), config.sampling),
        mock.patch.object(chunked_head, "CHUNK_ELEMENTS", at_once),
    ):
        sums, _ = backward(loss, part, config.micro_rows)
    optimiser.reduce_gradients()
    grads: dict[str, Any] = {n: m.grad for n, m in optimiser.masters.items()}
    frozen = [n for n, p in policy.network.named_parameters() if not p.requires_grad]
    assert all(n not in optimiser.weights and policy.network.get_parameter(n).grad is None for n in frozen)
    assert all(isinstance(g, DTensor) == (sharding == "fsdp2") for g in grads.values())
    whole = {n: g.full_tensor() if isinstance(g, DTensor) else g for n, g in grads.items()}
    return world.sum(sums)["loss"], whole


def gradients(folder: Path, world: World) -> None:
    for name in BATCHES:
        for sharding in ("none", "fsdp2"):
            loss, grads = gradient(folder, name, sharding)
            if world.is_main:
                save_file(grads, folder / f"{name}_{sharding}.grads", {"loss": json.dumps(loss)})


def runs(folder: Path, world: World) -> None:
    """The same GRPO run twice, and with adapters one of GRPO and one of SFT."""
    for name, sharding in (("whole", "none"), ("shards", "fsdp2")):
        grpo.run(run_config(folder, name, sharding=sharding))
        adapters(folder, name, sharding, world.rank)
    adapters(folder, "again", "none", world.rank)


def adapters(folder: Path, name: str, sharding: str, rank: int) -> None:
    """GRPO and SFT of adapters. torch's generator begins elsewhere in each process, as it does without a seed."""
    torch.manual_seed(100 + rank)
    grpo.run(run_config(folder, f"lora_{name}", sharding=sharding, lora=LORA, max_steps=3, validation={"every": 0}))
    sft.run(sft_lora_config(folder, f"sft_{name}", sharding))


class OneSided(LowCodes):
    """Has no verdict for any rollout of process 1."""

    def __call__(self, rollouts: Rollouts) -> Tensor:
        rewards = super().__call__(rollouts)
        return rewards.fill_(torch.nan) if os.environ.get("RANK") == "1" else rewards


def one_sided(folder: Path, world: World) -> None:
    """Process 1 has nothing to learn from: no verdicts, and no share of a pair or a row."""
    changes: dict[str, Any] = {"passes": 2, "old_log_probs": "recomputed", "refill_rounds": 1, "keep_extremes": 1}
    changes |= {"beta": 0.1, "token_weights": "critical", "max_no_verdict_frac": 1.0, "validation": {"every": 0}}
    changes |= {"reward": {"name": "tests.training.sharding_jobs:OneSided"}}
    for sharding in ("none", "fsdp2"):
        grpo.run(run_config(folder, f"one_sided_{sharding}", sharding=sharding, **changes))
    common = {"policy": str(folder / "policy"), "store": folder / "whole/store", "judge": "low-codes", "device": "cpu"}
    common |= {"precision": "fp32", "num_threads": 1, "max_steps": 2}
    preference.run(
        PreferenceConfig.model_validate(common | {"out": folder / "one_sided_dpo", "pairs_per_step": 1, "lora": LORA})
    )
    rejection.run(
        RejectionConfig.model_validate(common | {"out": folder / "one_sided_rejection", "batch_rows": 1, "lora": LORA})
    )


def other_weights(folder: Path, world: World) -> None:
    """Process 1 holds another number in one weight: before the run begins, and after a step."""
    said: list[str] = []
    for sharding in ("none", "fsdp2"):
        config = batch_config(folder, "lora", sharding=sharding)
        policy = open_policy(config, World(config))
        _nudge(policy.network.get_parameter(LAST_ADAPTER), world.rank)
        said.append(_refusal(partial(Optimiser, policy, config.optimiser, World(config))))
    config = batch_config(folder, "bf16")
    optimiser = Optimiser(open_policy(config, world), config.optimiser, world)
    said.append(_refusal(partial(optimiser.refuse_differences, 7)))
    _nudge(next(iter(optimiser.masters.values())), world.rank)  # too little for the bf16 weight in use
    said.append(_refusal(partial(optimiser.refuse_differences, 7)))
    (folder / f"other_weights_{world.rank}.json").write_text(json.dumps(said))


LAST_ADAPTER = "model.model.language_model.layers.1.mlp.down_proj.lora_B.default.weight"


@torch.no_grad()
def _nudge(weight: Tensor, rank: int) -> None:
    weight[-1] += 1e-7 * rank


def _refusal(act: Callable[[], object]) -> str:
    try:
        act()
    except UserError as error:
        return str(error)
    return ""


def back_to_two(folder: Path, world: World) -> None:
    """Go on where one process left off, one more step."""
    grpo.run(run_config(folder, "shards", sharding="fsdp2", max_steps=4))


class DiesOnce(LowCodes):
    """In the third phase (the fifth call: a phase asks twice), in process 1, and only if `file` is not there yet: raises or is killed."""

    def __init__(self, file: str, how: str) -> None:
        super().__init__()
        self.file, self.how, self.calls = Path(file), how, 0

    def __call__(self, rollouts: Rollouts) -> Tensor:
        self.calls += 1
        if self.calls == 5 and os.environ.get("RANK") == "1" and not self.file.exists():
            self.file.touch()
            if self.how == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            raise RuntimeError("the judge of process 1 fell over")
        return super().__call__(rollouts)


def dies_config(folder: Path, how: str, **others: Any) -> grpo.GrpoConfig:
    settings = {"file": str(folder / f"{how}.once"), "how": how}
    reward = {"name": "tests.training.sharding_jobs:DiesOnce", "settings": settings}
    changes = {"reward": reward, "validation": {"every": 0}, "sharding": "fsdp2", "max_steps": 3}
    return run_config(folder, how, **changes | others)


def raises(folder: Path, world: World) -> None:
    grpo.run(dies_config(folder, "raises"))


def killed(folder: Path, world: World) -> None:
    grpo.run(dies_config(folder, "killed"))


if __name__ == "__main__":
    place = Path(sys.argv[1])
    found = World(run_config(place, "shards"))
    for job in sys.argv[2:]:
        globals()[job](place, found)
