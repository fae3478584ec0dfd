"""What the removal of kernels did to learning: loss, gradients, seconds and memory of two checkouts on the same rollouts.

    python bench/removed_kernels.py ../before/.venv/bin/python          # a checkout of the commit before, with its own .venv

The lab checkpoint draws rollouts once; each checkout, in a process of its own, takes the loss of a GRPO update with an
entropy bonus and a likelihood term, so that nothing in it is 0, and its gradients, in fp32 and bf16 autocast. Differences
are relative: of the loss, and of all gradients together to their norm. Beside them stands how far each checkout is from
its own fp32 in bf16. Seconds are of an update, the fastest and the median of --repeats, the checkouts taken in turn;
memory is the highest that was resident, less what was before (Linux only).
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from thinkdraw.lab import checkpoint_path
from thinkdraw.lab.prompts import prompt_set
from thinkdraw.objectives import clipped_loss
from thinkdraw.policies import load_policy
from thinkdraw.types import Prompt, Sampling

SAMPLING = Sampling(max_thought_tokens=96, guidance_scale=5.0)
ALLOWED = {"fp32": 1e-6, "bf16": 1e-2}


def draw(folder: Path, prompts: int, group_size: int) -> None:
    chosen = [example.prompt for example in prompt_set("geneval", "train", prompts)]
    rollouts = load_policy(checkpoint_path()).sample(chosen, SAMPLING, group_size=group_size, decode=False)
    save_file({"image_tokens": rollouts.image_tokens().contiguous()}, folder / "rollouts.safetensors")
    texts = {"prompts": [prompt.text for prompt in rollouts.prompts], "thoughts": list(rollouts.thoughts)}
    (folder / "rollouts.json").write_text(json.dumps(texts))


def learn(folder: Path, name: str, precision: str) -> None:
    """The worker: loss and gradients to NAME.PRECISION.safetensors, seconds and bytes to standard output."""
    policy = load_policy(checkpoint_path(), precision=precision)
    texts = json.loads((folder / "rollouts.json").read_text())
    codes = load_file(folder / "rollouts.safetensors")["image_tokens"]
    rollouts = policy.teacher_forced([Prompt(text) for text in texts["prompts"]], texts["thoughts"], codes, SAMPLING)
    policy.network.train()
    advantages = torch.linspace(-1, 1, len(rollouts))
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    began = time.perf_counter()
    scored = policy.log_probs(rollouts)
    log_probs, mask = scored.log_probs, rollouts.mask
    loss = clipped_loss(log_probs, log_probs.detach(), advantages, mask, rollouts.is_image).loss
    loss = loss - 0.1 * log_probs[mask].mean() - 0.01 * scored.entropy[mask].mean()
    loss.backward()
    seconds, peak = time.perf_counter() - began, resident("VmHWM") - before
    gradients = {n: p.grad for n, p in policy.network.named_parameters() if p.grad is not None}
    save_file({"loss": loss.detach(), **gradients}, folder / f"{name}.{precision}.safetensors")
    print(json.dumps({"seconds": seconds, "bytes": peak}))


def resident(field: str) -> int:
    """Bytes: VmRSS, memory in use now; VmHWM, its highest since the last reset."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return 1024 * int(found.group(1))


def difference(one: Path, other: Path) -> dict[str, float]:
    before, after = load_file(one), load_file(other)
    assert before.keys() == after.keys()
    loss, now = float(before.pop("loss")), float(after.pop("loss"))
    gap = sum(float((before[n].double() - after[n].double()).square().sum()) for n in before)
    norm = sum(float(gradient.double().square().sum()) for gradient in before.values())
    return {"loss": abs(now - loss) / abs(loss), "gradients": (gap / norm) ** 0.5}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", help="the Python of the checkout before")
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--group-size", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.worker:
        folder, name, precision = asked.worker
        return learn(Path(folder), name, precision)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw(folder, asked.prompts, asked.group_size)
        measured: dict[tuple[str, str], list[dict[str, float]]] = {}
        for _ in range(asked.repeats):
            for side, python in (("before", asked.before), ("after", sys.executable)):
                for precision in ALLOWED:
                    command = [python, __file__, "", "--worker", name, side, precision]
                    reply = subprocess.run(command, capture_output=True, text=True)
                    if reply.returncode:
                        sys.exit(f"{side}: {reply.stderr.strip()[-2000:]}")
                    measured.setdefault((side, precision), []).append(json.loads(reply.stdout.splitlines()[-1]))
        for (side, precision), runs in sorted(measured.items()):
            seconds, peak = ([run[key] for run in runs] for key in ("seconds", "bytes"))
            print(f"{side:6} {precision}: {min(seconds):.2f} s, median {statistics.median(seconds):.2f} s, "
                  f"{statistics.median(peak) / 1e9:.2f} GB")  # fmt: skip
        for precision, allowed in ALLOWED.items():
            found = difference(*(folder / f"{side}.{precision}.safetensors" for side in ("before", "after")))
            print(f"{precision}, before to after: " + describe(found) + f", allowed {allowed:g}")
        for side in ("before", "after"):
            found = difference(*(folder / f"{side}.{precision}.safetensors" for precision in ALLOWED))
            print(f"{side}, fp32 to bf16: " + describe(found))


def describe(found: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.2g}" for name, value in found.items())


if __name__ == "__main__":
    main()
