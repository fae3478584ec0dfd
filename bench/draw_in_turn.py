"""Sampling of two checkouts, each in a process that stays, which draw the same pictures in turn.

    python bench/draw_in_turn.py --before ../before --precision fp32 --turns 10

Finer than `side_by_side.py`, whose turns start processes anew: for a difference of a few hundredths. 32 rollouts of the lab
checkpoint, guidance 5, after one that warms up. Prints the ratio before / after, more than 1 is faster now, of medians
and of minima, in wall time and in CPU time.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path


def draw_when_told(options: argparse.Namespace) -> None:
    """For each line of standard input draw once, and print wall and CPU seconds. In a checkout's own interpreter."""
    import torch

    from thinkdraw.lab import checkpoint_path
    from thinkdraw.lab.prompts import prompt_set
    from thinkdraw.policies import load_policy
    from thinkdraw.types import Sampling

    torch.set_num_threads(options.threads)
    policy = load_policy(str(checkpoint_path()), precision=options.precision)
    sampling = Sampling(max_thought_tokens=96, guidance_scale=5.0, thought=options.thought)
    prompts = [example.prompt for example in prompt_set("geneval", "validation", 4)]
    policy.sample(prompts, sampling, group_size=8)
    print("ready", flush=True)
    for _ in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        policy.sample(prompts, sampling, group_size=8)
        print(json.dumps({"wall": time.perf_counter() - wall, "CPU": time.process_time() - cpu}), flush=True)


def start(root: Path, words: list[str]) -> subprocess.Popen[str]:
    """A checkout's process, warm."""
    process = subprocess.Popen(
        [f"{root}/.venv/bin/python", __file__, *words, "--as-side"],
        cwd=root, env=os.environ | {"PYTHONPATH": f"{root}/src"}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    if process.stdout is None or process.stdout.readline() != "ready\n":
        sys.exit(f"{root}: the process ended before its first picture; what it says stands above.")
    return process


def draw(process: subprocess.Popen[str]) -> dict[str, float]:
    """Seconds of one batch there."""
    assert process.stdin and process.stdout
    process.stdin.write("draw\n")
    process.stdin.flush()
    return json.loads(process.stdout.readline())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="a checkout with its .venv")
    parser.add_argument("--after", type=Path, default=Path(__file__).parent.parent)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="bf16")
    parser.add_argument("--thought", choices=["off", "inline", "rewrite"], default="off")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--as-side", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.as_side:
        return draw_when_told(options)
    if options.before is None:
        parser.error("--before: which checkout to compare with?")
    words = [f"--precision={options.precision}", f"--thought={options.thought}", f"--threads={options.threads}"]
    sides = [start(root.resolve(), words) for root in (options.before, options.after)]
    seconds: list[list[dict[str, float]]] = [[], []]
    for turn in range(options.turns):
        for side in (0, 1) if turn % 2 == 0 else (1, 0):
            seconds[side].append(draw(sides[side]))
    for clock in ("wall", "CPU"):
        before, after = ([row[clock] for row in rows] for rows in seconds)
        medians, minima = statistics.median(before) / statistics.median(after), min(before) / min(after)
        print(f"{clock} before / after: {medians:.3f} of medians, {minima:.3f} of minima, "
              f"{statistics.median(before):.3f} and {statistics.median(after):.3f} s")  # fmt: skip
    for side in sides:
        side.communicate()


if __name__ == "__main__":
    main()
