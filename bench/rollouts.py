"""Think-then-draw rollouts per second: ours against transformers' own `generate`, on the same weights, prompts and CPU.

    python bench/rollouts.py --threads 2

The alternative writes thoughts with text `generate` (stopping at begin-of-image or end-of-sentence), then draws with image
`generate` and guidance, in one batch, with weights in whichever of fp32 and bf16 is faster. Thoughts
are sampled, so their lengths differ a little between the two: the table says how many tokens each wrote. Each side decodes its
pictures its own way. One row is ours as it is where no C++ compiler is found.
Prints a table, and with --json a JSON object. Medians of `--repeats` runs, taken in turn.
"""

import json
import platform
import statistics
from collections.abc import Callable
from functools import partial
from typing import Any
from unittest import mock

import lab_timing
import plain
import torch

from thinkdraw.lab.prompts import prompt_set
from thinkdraw.policies import load_policy
from thinkdraw.policies.fast import cpu_operations
from thinkdraw.policies.janus.policy import JanusPolicy
from thinkdraw.types import Prompt, Sampling


def contexts_of(policy: JanusPolicy, prompts: list[Prompt]) -> list[list[int]]:
    return [policy.text.prompt(prompt.text) for prompt in prompts]


def pictures_of(policy: JanusPolicy, rows: list[list[int]], sampling: Sampling) -> torch.Tensor:
    """uint8 pictures, drawn and decoded by transformers."""
    with torch.no_grad():
        decoded = policy.model.decode_image_tokens(plain.draw(policy, rows, sampling))
    return ((decoded.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def think_and_draw(policy: JanusPolicy, rows: list[list[int]], sampling: Sampling) -> torch.Tensor:
    thoughts = plain.think(policy, rows, sampling)
    return pictures_of(policy, [row + thought for row, thought in zip(rows, thoughts)], sampling)


def without_compiler(sample: Callable[[], Any]) -> Any:
    with mock.patch.object(cpu_operations, "kernels_for", return_value=None):
        return sample()


def main() -> None:
    parser = lab_timing.arguments(__doc__)
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    torch.manual_seed(0)
    sampling = Sampling(max_thought_tokens=96, guidance_scale=asked.guidance_scale)
    policies = {precision: load_policy(asked.checkpoint, precision=precision) for precision in ("fp32", "bf16")}
    theirs = {dtype: load_policy(asked.checkpoint, dtype=dtype) for dtype in ("fp32", "bf16")}
    for other in theirs.values():
        plain.as_transformers_opens_it(other)
    first = theirs["fp32"]
    prompts = [e.prompt for e in prompt_set("geneval", "validation", asked.prompts)]
    repeated = [prompt for prompt in prompts for _ in range(asked.group_size)]
    rows = contexts_of(first, repeated)
    thoughts = plain.think(first, rows, sampling)
    whole: dict[str, Callable[[], Any]] = {
        f"thinkdraw, {p}": lambda policy=policy: policy.sample(prompts, sampling, group_size=asked.group_size)
        for p, policy in policies.items()
    }
    whole |= {
        f"transformers, {name}": lambda other=other: think_and_draw(other, rows, sampling)
        for name, other in theirs.items()
    }
    # The picture phase alone: the same contexts, thoughts included, are drawn from by both.
    texts = [first.text.thought_text(ids) for ids in thoughts]
    codes = torch.zeros(len(rows), first.picture.num_tokens, dtype=torch.long)
    given = first.teacher_forced(repeated, texts, codes, sampling)
    opened = [row + thought for row, thought in zip(rows, thoughts)]
    lengths = (given.segment == 0).sum(1)
    picture: dict[str, Callable[[], Any]] = {
        f"thinkdraw, {p}": lambda policy=policy: policy.sample(
            repeated, sampling, seeds=list(range(len(rows))), prefix=given, prefix_lengths=lengths
        )
        for p, policy in policies.items()
    }
    for phase in (whole, picture):
        phase["without a compiler, bf16"] = partial(without_compiler, phase["thinkdraw, bf16"])
    picture |= {
        f"transformers, {name}": lambda other=other: pictures_of(other, opened, sampling)
        for name, other in theirs.items()
    }

    results = {}
    for phase, makers in (("think and draw", whole), ("draw only", picture)):
        medians = {name: statistics.median(values) for name, values in lab_timing.timed(makers, asked.repeats).items()}
        best = {who: min(v for k, v in medians.items() if k.startswith(who)) for who in ("thinkdraw", "transformers")}
        results[phase] = {"seconds": medians, "ratio": best["transformers"] / best["thinkdraw"]}
    ours = policies["fp32"].sample(prompts, sampling, group_size=asked.group_size, decode=False)
    tokens = {
        "thinkdraw": float((ours.segment == 0).sum(1).float().mean()),
        "transformers": sum(map(len, thoughts)) / len(rows) + 1,
    }
    found = {"rollouts": len(rows), "guidance_scale": asked.guidance_scale, "threads": asked.threads,
             "torch": torch.__version__, "machine": platform.processor() or platform.machine(),
             "thought_tokens": tokens, **results}  # fmt: skip
    if asked.json:
        print(json.dumps(found, indent=2))
        return
    for phase, result in results.items():
        print(f"{phase}, {len(rows)} rollouts, guidance {asked.guidance_scale:g}, {asked.threads} threads")
        for name, seconds in result["seconds"].items():
            print(f"  {name:24} {seconds:7.2f} s   {len(rows) / seconds:6.1f} rollouts/s")
        print(f"  best against best: {result['ratio']:.2f}×")
    print(f"thought tokens per rollout: {tokens['thinkdraw']:.1f} and {tokens['transformers']:.1f}")


if __name__ == "__main__":
    main()
