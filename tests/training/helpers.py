"""A toy reward and small configs; also what tests run in processes of their own."""

import dataclasses
import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from thinkdraw.objectives import SegmentCounts
from thinkdraw.policies.janus.tiny import random_janus
from thinkdraw.recipes import grpo, sft
from thinkdraw.runtime.tracking import MetricsLog
from thinkdraw.training.batch import Batch
from thinkdraw.training.optimiser import Optimiser
from thinkdraw.training.run import backward
from thinkdraw.training.world import World
from thinkdraw.types import Rollouts, Sampling

TIMES = ("seconds", "tokens_per_s")
ROOT = Path(__file__).resolve().parents[2]


class LowCodes:
    """Share of a picture's codes that are below 16 of 64."""

    name = "low-codes"

    def __init__(self, no_verdict_every: int = 0, constant: bool = False) -> None:
        self.no_verdict_every, self.constant = no_verdict_every, constant

    def __call__(self, rollouts: Rollouts) -> Tensor:
        share = (rollouts.image_tokens() < 16).float().mean(1).cpu()
        if self.constant:
            share = torch.full_like(share, 0.5)
        if self.no_verdict_every:
            share[:: self.no_verdict_every] = torch.nan
        return share

    def components(self, rollouts: Rollouts) -> dict[str, Tensor]:
        return {"low": self(rollouts)}


def gradients(config: Any, policy: Any, loss: Any, batch: Any) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Gradients of the trained weights for a batch, cut into config.micro_rows, and what its loss sums up."""
    optimiser = Optimiser(policy, config.optimiser, World(config))
    sums, _ = backward(loss, batch, config.micro_rows)
    grads = {name: master.grad.clone() for name, master in optimiser.masters.items() if master.grad is not None}
    optimiser.optimizer.zero_grad(set_to_none=True)
    return grads, sums


def counts_of(batch: Batch, world: World) -> SegmentCounts:
    """Trained tokens over all processes."""
    return SegmentCounts(**world.sum(dataclasses.asdict(batch.counts())))


def grpo_gradients(
    config: grpo.GrpoConfig, policy: Any, batch: Batch, coefs: tuple[float, float] = (0.0, 0.0)
) -> tuple[dict[str, Tensor], dict[str, float]]:
    counts = counts_of(batch, World(config))
    loss = partial(grpo.grpo_loss, policy, counts=counts, entropy_coefs=coefs, config=config)
    return gradients(config, policy, loss, batch)


def flat(grads: dict[str, Tensor]) -> Tensor:
    return torch.cat([grad.flatten() for grad in grads.values()])


def policy_dir(folder: Path) -> str:
    return str(random_janus(folder / "policy"))


def grpo_config(folder: Path, policy: str, **changes: Any) -> grpo.GrpoConfig:
    values: dict[str, Any] = {
        "out": folder / "run",
        "policy": policy,
        "device": "cpu",
        "precision": "fp32",
        "num_threads": 1,
        "prompts": {"count": 24},
        "validation": {"every": 0, "prompts": {"split": "validation", "count": 4}},
        "reward": {"name": "tests.training.helpers:LowCodes"},
        "sampling": Sampling(max_thought_tokens=6),
        "prompts_per_phase": 3,
        "group_size": 4,
        "max_steps": 3,
        "micro_rows": 8,
        "optimiser": {"learning_rate": 1e-3, "warmup_steps": 0},
        "log_rollouts_every": 0,
    }
    return grpo.GrpoConfig.model_validate(values | changes)


def sft_config(folder: Path, policy: str, **changes: Any) -> sft.SftConfig:
    values: dict[str, Any] = {
        "out": folder / "run",
        "policy": policy,
        "device": "cpu",
        "precision": "fp32",
        "num_threads": 1,
        "batch_rows": 6,
        "micro_rows": 4,
        "max_steps": 3,
        "max_thought_tokens": 24,
        "data": {"source": str(write_examples(folder / "examples.jsonl"))},
        "optimiser": {"learning_rate": 1e-3, "warmup_steps": 0},
    }
    return sft.SftConfig.model_validate(values | changes)


def write_examples(path: Path, count: int = 20) -> Path:
    generator = torch.Generator().manual_seed(1)
    rows = [
        {
            "prompt": f"{n} red circles",
            "thought": "draw " * (n % 5) + "it",
            "image_tokens": torch.randint(64, (16,), generator=generator).tolist(),
        }
        for n in range(count)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def rows_without_times(run: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if not k.startswith(TIMES)} for row in MetricsLog.read(run / "metrics.jsonl")]


def _main(recipe: str, config_file: str) -> None:
    from thinkdraw.config import load_config

    module, model = {"grpo": (grpo, grpo.GrpoConfig), "sft": (sft, sft.SftConfig)}[recipe]
    module.run(load_config(model, Path(config_file)))


if __name__ == "__main__":
    _main(*sys.argv[1:])
