"""Two processes against one, replicated and with sharding=fsdp2: the same gradient, and how fast each of them samples.

    python bench/two_ranks.py --out two_ranks.json

1. Loss and gradients of one stored, judged batch, its groups split over the processes, against one process.
   Bar: relative difference at most 1e-4.
2. Rollouts per second and process, gathering the weights included, one core each, the same number of rollouts per
   process. Bar: at least 0.9 of one process alone, which is measured before and after.

CPU, gloo, fp32. Prints a table, and with --out writes JSON.
"""

import argparse
import dataclasses
import json
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch.distributed.tensor import DTensor

from thinkdraw.lab import checkpoint_path
from thinkdraw.lab.prompts import prompt_set
from thinkdraw.objectives import ADVANTAGES, SegmentCounts
from thinkdraw.policies.janus.policy import JanusPolicy
from thinkdraw.policies.opening import load_trained
from thinkdraw.recipes import grpo
from thinkdraw.rewards.opening import open_reward
from thinkdraw.rollouts import RolloutStore
from thinkdraw.runtime.tracking import environment
from thinkdraw.training.batch import Batch
from thinkdraw.training.judged_store import load_judged_rollouts
from thinkdraw.training.optimiser import Optimiser
from thinkdraw.training.run import backward, open_policy
from thinkdraw.training.world import World
from thinkdraw.types import Sampling

JUDGE = "lab-detector"
RUNS = [("alone", 1, "none"), ("replicated", 2, "none"), ("fsdp2", 2, "fsdp2"), ("alone again", 1, "none")]


def config_of(asked: argparse.Namespace, sharding: str) -> grpo.GrpoConfig:
    values: dict[str, Any] = {"policy": asked.checkpoint, "device": "cpu", "precision": "fp32", "num_threads": 1}
    values |= {"sampling": Sampling(guidance_scale=asked.guidance_scale), "micro_rows": 8, "sharding": sharding}
    return grpo.GrpoConfig.model_validate(values)


def write_store(asked: argparse.Namespace, path: Path) -> None:
    """Four groups of four rollouts that the checkpoint drew, with the lab detector's scores."""
    policy = load_trained(asked.checkpoint, precision="fp32")
    sampling = config_of(asked, "none").sampling
    rollouts = policy.sample([e.prompt for e in prompt_set("geneval", "train", 4)], sampling, group_size=4)
    store = RolloutStore.create(path, policy, sampling.thought)
    store.append(rollouts, {JUDGE: open_reward(JUDGE, policy)(rollouts).rewards})


def gradient(policy: JanusPolicy, optimiser: Optimiser, config: grpo.GrpoConfig, store: Path) -> tuple[float, dict]:
    """Loss and gradients of the store, over all processes. Scores are ranked, so that every group has a spread."""
    judged, world = load_judged_rollouts(store, JUDGE, policy), optimiser.world
    size = judged.group_size
    mine = world.share(len(judged) // size)
    rows = torch.arange(mine.start * size, mine.stop * size)
    rewards = judged.rewards[rows] + torch.arange(len(rows)) % size / size
    advantages = ADVANTAGES["group"](rewards, size)
    batch = Batch(judged.rollouts.select(rows, size), advantages=advantages)
    counts = SegmentCounts(**world.sum(dataclasses.asdict(batch.counts())))
    loss = partial(grpo.grpo_loss, policy, counts=counts, entropy_coefs=(0.0, 0.0), config=config)
    with optimiser.learning(batch.num_micro(config.micro_rows), config.sampling):
        sums, _ = backward(loss, batch, config.micro_rows)
    optimiser.reduce_gradients()
    grads: dict[str, Any] = {name: master.grad for name, master in optimiser.masters.items()}
    optimiser.optimizer.zero_grad(set_to_none=True)
    return world.sum(sums)["loss"], {n: g.full_tensor() if isinstance(g, DTensor) else g for n, g in grads.items()}


def work(asked: argparse.Namespace) -> None:
    """What each process does."""
    folder, name, sharding = Path(asked.worker[0]), asked.worker[1], asked.worker[2]
    config = config_of(asked, sharding)
    world = World(config)
    policy = open_policy(config, world)
    optimiser = Optimiser(policy, config.optimiser, world)
    with optimiser.full_weights():  # the store asks for the policy's vocabulary, and so warms up
        load_judged_rollouts(folder / "store", JUDGE, policy)
    loss, grads = gradient(policy, optimiser, config, folder / "store")
    prompts = [e.prompt for e in prompt_set("geneval", "validation", asked.prompts)]
    seconds: list[float] = []
    gathering: list[float] = []
    for repeat in range(asked.repeats + 1):
        world.wait()
        began = time.perf_counter()
        with optimiser.full_weights():
            gathering.append(time.perf_counter() - began)
            # The same work in every process, so that none waits for another's longer thoughts.
            policy.sample(prompts, config.sampling, group_size=8, seed=repeat)
        seconds.append(time.perf_counter() - began)
    rates = [8 * len(prompts) / s for s in seconds[1:]]
    if world.is_main:
        save_file(grads, folder / f"{name}.safetensors")
        found = {"loss": loss, "rollouts_per_s_and_process": rates, "gathering_s": statistics.median(gathering[1:])}
        (folder / f"{name}.json").write_text(json.dumps(found))


def start(asked: argparse.Namespace, folder: Path, name: str, processes: int, sharding: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    command += [__file__, "--worker", str(folder), name, sharding, "--checkpoint", asked.checkpoint]
    command += ["--prompts", str(asked.prompts), "--repeats", str(asked.repeats)]
    subprocess.run([*command, "--guidance-scale", str(asked.guidance_scale)], check=True)
    return json.loads((folder / f"{name}.json").read_text())


def relative_difference(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    gap = sum(float((a[n] - b[n]).double().square().sum()) for n in a)
    return (gap / sum(float(a[n].double().square().sum()) for n in a)) ** 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default=str(checkpoint_path()))
    parser.add_argument("--prompts", type=int, default=4, help="8 rollouts of each, per process")
    parser.add_argument("--guidance-scale", type=float, default=5.0)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.worker:
        return work(asked)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_store(asked, folder / "store")
        found = {name: start(asked, folder, name, n, sharding) for name, n, sharding in RUNS}
        whole = load_file(folder / "alone.safetensors")
        for name, run in found.items():
            run["loss_difference"] = abs(run["loss"] - found["alone"]["loss"])
            run["gradient_difference"] = relative_difference(whole, load_file(folder / f"{name}.safetensors"))
    alone = [r for name in ("alone", "alone again") for r in found[name]["rollouts_per_s_and_process"]]
    print(f"{'':12} {'loss':>10} {'gradient':>10} {'rollouts/s':>11} {'of alone':>9} {'gathering s':>12}")
    for name, run in found.items():
        rate = statistics.median(run["rollouts_per_s_and_process"])
        run["of_alone"] = rate / statistics.median(alone)
        differences = f"{run['loss_difference']:10.1e} {run['gradient_difference']:10.1e}"
        print(f"{name:12} {differences} {rate:11.2f} {run['of_alone']:9.2f} {run['gathering_s']:12.4f}")
    if asked.out:
        asked.out.write_text(json.dumps({"runs": found, "environment": environment()}, indent=2) + "\n")


if __name__ == "__main__":
    main()
