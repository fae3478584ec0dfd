"""One GRPO step, sample, judge and update, against a plain loop with T2I-R1's structure: same weights, judge and number of pictures.

    python bench/grpo_step.py --threads 2 --out grpo_step.json

The plain loop is `plain.py`'s. It runs in whichever of fp32, bf16 autocast in the update, and bf16 weights, and with
whichever number of rows per pass of the update, makes its step fastest; so does ours, in fp32 or bf16 autocast. Guidance,
thoughts in one context with their picture, judge `lab-detector`, the same loss: token means, clip 0.2, one update.

Rows of the table: the loop; one measure alone (no reference, our sampler, our update, our update where no C++ compiler is
found); ours with all of them, with a reference as the plain loop has it, and with guidance in the loss, which is our default and
runs two rows per rollout where all rows above it score image tokens without guidance.
The last lines compare loss and gradient of both updates on the same rollouts, in fp32, away from the reference.
Medians of `--repeats` steps, taken in turn; a ratio is the median of those to the plain step of the same turn, with the
lowest and the highest, so that a machine that grows slower counts on both sides.
"""

import json
import statistics
import time
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import lab_timing
import plain
import torch
from torch import Tensor

from thinkdraw.lab.prompts import prompt_set
from thinkdraw.objectives import ADVANTAGES
from thinkdraw.policies import load_policy
from thinkdraw.policies.janus.likelihood import GuidanceInLoss
from thinkdraw.policies.janus.policy import JanusPolicy
from thinkdraw.recipes import grpo
from thinkdraw.rewards.opening import open_reward
from thinkdraw.runtime.tracking import environment
from thinkdraw.training.batch import Batch
from thinkdraw.training.optimiser import Optimiser
from thinkdraw.training.run import backward
from thinkdraw.training.world import World
from thinkdraw.types import Prompt, Rollouts, Sampling

BETA, LEARNING_RATE = 0.01, 1e-6  # T2I-R1's
PLAIN_MODES = ("fp32", "bf16 autocast", "bf16 weights")


class Plain:
    """How the plain loop samples and learns. mode: one of PLAIN_MODES, all but the second for sampling too."""

    def __init__(self, checkpoint: str, mode: str, micro_rows: int, beta: float = BETA) -> None:
        self.policy = load_policy(checkpoint, dtype="bf16" if mode == "bf16 weights" else "fp32")
        plain.as_transformers_opens_it(self.policy)
        precision = "bf16" if mode == "bf16 autocast" else "fp32"
        self.learner = plain.PlainLearner(
            self.policy, rows=micro_rows, precision=precision, beta=beta, learning_rate=LEARNING_RATE
        )

    def sample(self, prompts: list[Prompt], sampling: Sampling, group_size: int, seed: int) -> Rollouts:
        torch.manual_seed(seed)
        return plain.sample(self.policy, prompts, sampling, group_size)

    def backward(self, rollouts: Rollouts, rewards: Tensor) -> float:
        return self.learner.backward(rollouts, ADVANTAGES["group"](rewards, rollouts.group_size).values)

    def learn(self, rollouts: Rollouts, rewards: Tensor) -> None:
        self.learner.step(rollouts, ADVANTAGES["group"](rewards, rollouts.group_size).values)


class Ours:
    """The pieces of `recipes/grpo.py`. policy: trained, with its own precision and guidance_in_loss."""

    def __init__(self, policy: JanusPolicy, micro_rows: int, beta: float = 0.0) -> None:
        values: dict[str, Any] = {"device": policy.device.type, "precision": policy.precision, "variant": "dapo"}
        values |= {"micro_rows": micro_rows, "beta": beta, "clip_high": 0.2, "old_log_probs": "recomputed"}
        values |= {"num_threads": torch.get_num_threads()}
        values |= {"optimiser": {"learning_rate": LEARNING_RATE, "warmup_steps": 0}}
        self.policy, self.config = policy, grpo.GrpoConfig.model_validate(values)
        self.world = World(self.config)
        if beta:
            policy.make_reference()
        self.optimiser = Optimiser(policy, self.config.optimiser, self.world)

    @classmethod
    def of(
        cls,
        checkpoint: str,
        precision: str,
        micro_rows: int,
        beta: float = 0.0,
        in_loss: GuidanceInLoss = "conditional",
        kernels: bool = True,
    ) -> "Ours":
        policy = load_policy(checkpoint, precision=precision, guidance_in_loss=in_loss)
        if not kernels:
            plain.with_transformers_layers(policy)
        return cls(policy, micro_rows, beta)

    def sample(self, prompts: list[Prompt], sampling: Sampling, group_size: int, seed: int) -> Rollouts:
        return self.policy.sample(prompts, sampling, group_size=group_size, seed=seed)

    def backward(self, rollouts: Rollouts, rewards: Tensor) -> float:
        advantages = ADVANTAGES["group"](rewards, rollouts.group_size)
        batch = Batch(rollouts, advantages=advantages).to(self.policy.device)
        loss = partial(grpo.grpo_loss, self.policy, counts=batch.counts(), entropy_coefs=(0.0, 0.0), config=self.config)
        with self.optimiser.learning(batch.num_micro(self.config.micro_rows), rollouts.sampling):
            sums, _ = backward(loss, batch, self.config.micro_rows)
        return sums["loss"]

    def learn(self, rollouts: Rollouts, rewards: Tensor) -> None:
        self.backward(rollouts, rewards)
        self.optimiser.step(0, 0.0)


@dataclass
class Step:
    """One way to make a step: who samples, and who learns."""

    sampler: Plain | Ours
    learner: Plain | Ours

    def run(self, prompts: list[Prompt], sampling: Sampling, group_size: int, seed: int) -> dict[str, float]:
        """Seconds of each part, and of the whole."""
        times = [time.perf_counter()]
        rollouts = self.sampler.sample(prompts, sampling, group_size, seed)
        times.append(time.perf_counter())
        rewards = open_reward("lab-detector", self.sampler.policy)(rollouts).rewards
        times.append(time.perf_counter())
        self.learner.learn(rollouts, rewards)
        times.append(time.perf_counter())
        parts = {name: b - a for name, a, b in zip(("sample", "judge", "update"), times, times[1:])}
        return parts | {"step": times[-1] - times[0]}


def fastest(name: str, steps: dict[tuple, Step], run: Any) -> tuple:
    """The setting whose step takes least, of two runs each."""
    seconds = {setting: min(run(step, seed)["step"] for seed in (0, 1)) for setting, step in steps.items()}
    best = min(seconds, key=lambda setting: seconds[setting])
    print(f"{name}: " + ", ".join(f"{' '.join(map(str, s))} {t:.2f} s" for s, t in seconds.items()), flush=True)
    return best


def agreement(checkpoint: str, prompts: list[Prompt], sampling: Sampling, group_size: int) -> dict[str, float]:
    """Difference of the two losses, and of the gradients relative to their norm; fp32, reference on.

    Both policies stand away from their reference by the same noise; rewards are made to differ within each group.
    """
    sides = {"plain": Plain(checkpoint, "fp32", 16), "ours": Ours.of(checkpoint, "fp32", 12, BETA)}
    for side in sides.values():
        with torch.no_grad():
            for name, weight in side.policy.network.named_parameters():
                if weight.requires_grad:
                    noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(len(name)))
                    weight.add_(0.1 * weight.std() * noise if weight.numel() > 1 else 0.0)
    rollouts = sides["ours"].sample(prompts, sampling, group_size, 0)
    rewards = torch.arange(len(rollouts)).remainder(group_size).float()
    losses = {name: side.backward(rollouts, rewards) for name, side in sides.items()}
    grads = [
        {n: p.grad.double() for n, p in side.policy.network.named_parameters() if p.grad is not None}
        for side in sides.values()
    ]
    gap = sum(float((grads[0][n] - grads[1][n]).square().sum()) for n in grads[0])
    norm = sum(float(g.square().sum()) for g in grads[0].values())
    return {"loss": losses["plain"], "loss difference": abs(losses["plain"] - losses["ours"]),
            "gradient difference": (gap / norm) ** 0.5}  # fmt: skip


def rows_of(checkpoint: str, theirs: tuple, mine: tuple) -> dict[str, Step]:
    loop, ours = Plain(checkpoint, *theirs), Ours.of(checkpoint, *mine)
    with_reference = Ours.of(checkpoint, *mine, beta=BETA)
    guided = Ours.of(checkpoint, *mine, in_loss="same")
    return {
        "plain loop": Step(loop, loop),
        "no reference, alone": Step(loop, Plain(checkpoint, *theirs, beta=0.0)),
        "our sampler, alone": Step(ours, loop),
        "our update, alone": Step(loop, ours),
        "the same without kernels": Step(loop, Ours.of(checkpoint, *mine, kernels=False)),
        "thinkdraw": Step(ours, ours),
        "thinkdraw, with a reference": Step(with_reference, with_reference),
        "thinkdraw, guidance in the loss": Step(guided, guided),
    }


def main() -> None:
    parser = lab_timing.arguments(__doc__)
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--plain-modes", nargs="+", default=[*PLAIN_MODES], choices=PLAIN_MODES)
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"], choices=["fp32", "bf16"])
    parser.add_argument(
        "--micro-rows", nargs="+", type=int, default=[16, 32, 64], help="rows per pass, of both updates"
    )
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    sampling = Sampling(max_thought_tokens=96, guidance_scale=asked.guidance_scale)
    prompts = [e.prompt for e in prompt_set("geneval", "train", asked.prompts)]

    def run(step: Step, seed: int) -> dict[str, float]:
        return step.run(prompts, sampling, asked.group_size, seed)

    def both(side: Plain | Ours) -> Step:
        return Step(side, side)

    same = agreement(asked.checkpoint, prompts[:2], sampling, asked.group_size)
    settings = {s: both(Plain(asked.checkpoint, *s)) for s in product(asked.plain_modes, asked.micro_rows)}
    theirs = fastest("plain loop", settings, run)
    settings = {s: both(Ours.of(asked.checkpoint, *s)) for s in product(asked.precisions, asked.micro_rows)}
    mine = fastest("thinkdraw", settings, run)
    del settings
    rows = rows_of(asked.checkpoint, theirs, mine)
    measured: dict[str, list[dict[str, float]]] = {name: [] for name in rows}
    for seed in range(asked.repeats):
        for name, step in rows.items():
            measured[name].append(run(step, seed))
    medians = {name: {k: statistics.median(m[k] for m in found) for k in found[0]} for name, found in measured.items()}
    ratios = {
        name: sorted(plain["step"] / one["step"] for plain, one in zip(measured["plain loop"], found))
        for name, found in measured.items()
    }

    count = asked.prompts * asked.group_size
    print(f"\n{count} rollouts, guidance {asked.guidance_scale:g}, {asked.threads} threads; plain loop: {theirs[0]}, "
          f"{theirs[1]} rows a pass; thinkdraw: {mine[0]}, {mine[1]}")  # fmt: skip
    print(f"{'seconds':32} {'sample':>8} {'judge':>8} {'update':>8} {'step':>8} {'ratio':>7}")
    for name, found in medians.items():
        line = f"{name:32} " + " ".join(f"{value:8.3f}" for value in found.values())
        found["ratio"], low, high = statistics.median(ratios[name]), ratios[name][0], ratios[name][-1]
        print(f"{line} {found['ratio']:6.2f}× [{low:.2f}, {high:.2f}]")
    print("the same rollouts, fp32, with a reference: " + ", ".join(f"{k} {v:.2g}" for k, v in same.items()))
    if asked.out:
        chosen = {"plain loop": theirs, "thinkdraw": mine}
        found = {"settings": {k: str(v) for k, v in vars(asked).items()}, "chosen": chosen, "medians": medians,
                 "ratios": ratios, "agreement": same, "environment": environment()}  # fmt: skip
        asked.out.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
