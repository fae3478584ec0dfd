"""How the cost of rollouts grows: with their number, and with the tokens of a picture.

    python bench/cost_growth.py --threads 2

*Rollouts ×4*: seconds of sampling `--rollouts` and four times as many think-then-draw rollouts, on the same weights.
*Picture tokens 64 → 576*: seconds of drawing pictures of 64, 144, 256, 400 and 576 tokens without a thought, on random
weights of one shape. A model of the cost is fitted to all but the largest and asked for it: a decoding step costs a
constant, which is the weights, plus a part that grows with the tokens before it, which is the attention; so a picture of
N tokens after a prompt of L costs a·N + b·(N·L + N²/2). The error of that prediction is printed.
Prints a table, with --json a JSON object. Medians of `--repeats` runs, taken in turn after one that does not count.
"""

import argparse
import json
import platform
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lab_timing
import numpy as np
import torch

from thinkdraw.lab.prompts import prompt_set
from thinkdraw.policies import load_policy
from thinkdraw.policies.janus.tiny import random_janus
from thinkdraw.types import Sampling

SIDES = (8, 12, 16, 20, 24)  # of the grid of tokens
PATCH = 4


def medians(make: dict[int, Callable[[], Any]], repeats: int) -> dict[int, float]:
    return {size: statistics.median(values) for size, values in lab_timing.timed(make, repeats).items()}


def by_rollouts(asked: argparse.Namespace) -> dict[str, Any]:
    policy = load_policy(asked.checkpoint, precision=asked.precision)
    prompts = [e.prompt for e in prompt_set("geneval", "validation", 4 * asked.rollouts // asked.group_size)]
    settings = Sampling(max_thought_tokens=96, guidance_scale=asked.guidance_scale)

    def draw(count: int) -> Callable[[], Any]:
        some = prompts[: count // asked.group_size]
        return lambda: policy.sample(some, settings, group_size=asked.group_size)

    seconds = medians({n: draw(n) for n in (asked.rollouts, 4 * asked.rollouts)}, asked.repeats)
    return {"seconds": seconds, "ratio": seconds[4 * asked.rollouts] / seconds[asked.rollouts]}


def by_picture_tokens(asked: argparse.Namespace, folder: Path) -> dict[str, Any]:
    prompts = [e.prompt for e in prompt_set("geneval", "validation", asked.tokens_rollouts)]
    settings = Sampling(thought="off", guidance_scale=asked.guidance_scale)
    make, before = {}, 0
    for side in SIDES:
        shape = {"hidden": asked.hidden, "layers": asked.layers, "heads": asked.hidden // 32, "max_positions": 1024}
        path = random_janus(folder / str(side), image_size=PATCH * side, patch=PATCH, codes=256, **shape)
        policy = load_policy(path, precision=asked.precision)
        before = max(len(policy.text.prompt(prompt.text)) for prompt in prompts)
        make[side * side] = lambda policy=policy: policy.sample(prompts, settings, decode=False)
    seconds = medians(make, asked.repeats)
    predicted = predict(seconds, before)
    return {"seconds": seconds, "predicted": predicted, "error": predicted / seconds[max(seconds)] - 1}


def predict(seconds: dict[int, float], before: int) -> float:
    """Of the largest, by the model fitted to the others with relative errors."""
    *known, asked = sorted(seconds)

    def terms(tokens: int) -> np.ndarray:
        return np.array([tokens, tokens * before + tokens**2 / 2])

    table = np.stack([terms(n) / seconds[n] for n in known])
    coefficients, *_ = np.linalg.lstsq(table, np.ones(len(known)), rcond=None)
    return float(terms(asked) @ coefficients)


def main() -> None:
    parser = lab_timing.arguments(__doc__)
    parser.add_argument("--rollouts", type=int, default=64)
    parser.add_argument("--tokens-rollouts", type=int, default=16, help="of the pictures of 64 to 576 tokens")
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    with tempfile.TemporaryDirectory() as folder:
        found = {"rollouts": by_rollouts(asked), "picture tokens": by_picture_tokens(asked, Path(folder))}
    if asked.json:
        machine = platform.processor() or platform.machine()
        print(json.dumps({**vars(asked), "torch": torch.__version__, "machine": machine, **found}, indent=2))
        return
    for name, result in found.items():
        for size, seconds in result["seconds"].items():
            print(f"{size:5} {name:16} {seconds:8.3f} s")
    print(f"rollouts ×4: time ×{found['rollouts']['ratio']:.2f}")
    tokens = found["picture tokens"]
    print(f"{max(tokens['seconds'])} picture tokens: {tokens['predicted']:.3f} s predicted, {tokens['error']:+.1%}")


if __name__ == "__main__":
    main()
