"""What a judge costs behind `thinkdraw serve`, and what judging beside drawing hides. Prints a table and JSON.

    python bench/judge_service.py --judge lab-clip --out service.json

1. service: the same pictures judged through `thinkdraw serve` on loopback / in this process. Bar: at most 1.2.
2. overlap, stand-in: a judge that sleeps, off the CPU, as long as drawing a chunk takes. Share of its time that is
   hidden, against drawing and judging the same chunks one after the other. Bar: at least 0.7.
3. overlap, local judge: total seconds with the judge on the same cores / one after the other. Bar: at most 1.05.

Every figure is the median of the ratios of `--repeats` pairs, measured in turn; low and high are their extremes.
"""

import argparse
import dataclasses
import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from thinkdraw.lab.prompts import prompt_set
from thinkdraw.policies.janus.policy import JanusPolicy
from thinkdraw.policies.opening import load_trained
from thinkdraw.policies.sampling.noise import derive_seeds
from thinkdraw.recipes.phase.judging import draw_and_judge, judge
from thinkdraw.rewards.opening import open_reward
from thinkdraw.rewards.user_rewards import as_reward
from thinkdraw.runtime.tracking import environment
from thinkdraw.serve.reward import HttpReward
from thinkdraw.types import Prompt, Reward, Rollouts, Sampling


@dataclasses.dataclass
class Phase:
    """A phase's pictures, drawn chunk by chunk and always the same ones."""

    policy: JanusPolicy
    prompts: list[Prompt]
    group_size: int
    num_chunks: int

    def draw(self) -> Iterator[Rollouts]:
        seeds = derive_seeds(0, len(self.prompts), self.group_size)
        step = -(-len(self.prompts) // self.num_chunks)
        for first in range(0, len(self.prompts), step):
            chosen = self.prompts[first : first + step]
            rows = slice(first * self.group_size, (first + len(chosen)) * self.group_size)
            yield self.policy.sample(chosen, Sampling(), group_size=self.group_size, seeds=seeds[rows])


@dataclasses.dataclass
class Sleeping:
    """A stand-in: a judge on another machine that takes `row_s` seconds per row, and none of this machine's."""

    row_s: float
    name: str = "sleeping"
    elsewhere: bool = True

    def __call__(self, rollouts: Rollouts) -> Tensor:
        time.sleep(self.row_s * len(rollouts))
        return torch.zeros(len(rollouts))


def timed(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


@contextmanager
def served(name: str) -> Iterator[str]:
    """`thinkdraw serve` in a process of its own; its address."""
    code = "import sys; from thinkdraw.cli import main; sys.argv[0] = 'thinkdraw'; main()"
    job = subprocess.Popen(
        [sys.executable, "-c", code, "serve", name, "--port", "0"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert job.stdout is not None
        line = job.stdout.readline()
        found = re.search(r"http://\S+", line)
        if found is None:
            raise SystemExit(f"the server did not start: {line}")
        yield found[0]
    finally:
        job.terminate()
        job.wait()


def service(name: str, local: Reward, rollouts: Rollouts, repeats: int) -> dict[str, object]:
    pairs = []
    with served(name) as url:
        remote = HttpReward(url)
        both = remote(rollouts).rewards, local(rollouts).rewards
        pairs += [(timed(lambda: remote(rollouts)), timed(lambda: local(rollouts))) for _ in range(repeats)]
        remote.close()
    gap = float((both[0] - both[1]).abs().max())
    return {
        "max_difference": gap,
        "missing": int(both[0].isnan().sum()),
        **ratios("service_s", "local_s", pairs, "at most 1.2"),
    }


def overlap(phase: Phase, reward: Reward, repeats: int) -> list[tuple[float, float, float]]:
    """(overlapped, one after the other, of which judging) seconds."""
    found = []
    for _ in range(repeats):
        beside = timed(lambda: draw_and_judge(phase.draw(), reward, in_parallel=reward.elsewhere))
        began = time.monotonic()
        judged = [judge(reward, rollouts).seconds for rollouts in phase.draw()]
        found.append((beside, time.monotonic() - began, sum(judged)))
    return found


def ratios(first: str, second: str, pairs: list[tuple[float, float]], bar: str) -> dict[str, object]:
    quotients = [a / b for a, b in pairs]
    return {
        first: statistics.median(a for a, _ in pairs), second: statistics.median(b for _, b in pairs),
        "value": statistics.median(quotients), "low": min(quotients), "high": max(quotients), "bar": bar,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--judge", default="lab-clip", help="lab-clip or lab-judge")
    parser.add_argument("--policy", default="lab")
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--group-size", type=int, default=8)
    parser.add_argument(
        "--chunks", type=int, default=8, help="of a phase; the judge of the last one has nothing to hide behind"
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, help="file for the JSON")
    given = parser.parse_args()

    prompts = [example.prompt for example in prompt_set("geneval", "train", given.prompts)]
    phase = Phase(load_trained(given.policy, precision="bf16"), prompts, given.group_size, given.chunks)
    local = open_reward(given.judge)
    whole = Rollouts.join(list(phase.draw()))  # warms up the policy
    judge(local, whole)

    draw_s = statistics.median(timed(lambda: list(phase.draw())) for _ in range(given.repeats))
    draw_whole_s = timed(lambda: list(dataclasses.replace(phase, num_chunks=1).draw()))
    hidden = overlap(phase, as_reward(Sleeping(draw_s / len(whole))), given.repeats)
    same_cores = overlap(phase, local, given.repeats)
    results = {
        "service": service(given.judge, local, whole, given.repeats),
        "overlap, stand-in": ratios(
            "hidden_s", "judge_s", [(after - beside, judged) for beside, after, judged in hidden], "at least 0.7"
        ),
        "overlap, local judge": ratios(
            "beside_s", "after_s", [(beside, after) for beside, after, _ in same_cores], "at most 1.05"
        ),
    }
    report = {
        "judge": given.judge, "rows": len(whole), "chunks": given.chunks, "repeats": given.repeats,
        "threads": torch.get_num_threads(), "draw_s": draw_s, "draw_in_one_chunk_s": draw_whole_s, **results,
        "environment": environment(),
    }  # fmt: skip
    for name, row in results.items():
        print(f"{name:22} {row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]   bar: {row['bar']}")
    text = json.dumps(report, indent=2)
    print(text)
    if given.out:
        given.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
