"""Does `thinkdraw check` pass what is right and fail what is wrong? Twenty seeds of each, on two checkpoints and dtypes.

    python bench/check_power.py --out runs/check_power.jsonl

Checkpoints: the lab's, and a random one of 24 layers, where bf16 rounds most and distributions are far from even. Breaks
are in the scorer alone, as a bug of the trainer would be: temperature 5 % too high, guidance 0.1 too high, and a prompt in
the role of the assistant. Each check is a line of --out, and those that are there are not run again. Prints how many
checks passed, and the closest call: the largest share of its limit that a healthy check took, the smallest that the worst
line of a broken one did.
"""

import argparse
import dataclasses
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from thinkdraw.lab import checkpoint_path
from thinkdraw.policies import load_policy
from thinkdraw.policies.check import check_policy
from thinkdraw.policies.janus.policy import JanusPolicy
from thinkdraw.policies.janus.tiny import ASSISTANT, USER, random_janus
from thinkdraw.types import Rollouts

CHECKPOINTS = ("lab", "24 layers")
DTYPES = {"fp32": ("fp32", "fp32"), "bf16": ("fp32", "bf16"), "bf16 weights": ("bf16", "bf16")}  # dtype, precision


def with_sampling(rollouts: Rollouts, **changes: float) -> Rollouts:
    return dataclasses.replace(rollouts, sampling=rollouts.sampling.model_copy(update=changes))


def hotter(policy: JanusPolicy, rollouts: Rollouts) -> Rollouts:
    return with_sampling(rollouts, temperature=1.05 * rollouts.sampling.temperature)


def more_guided(policy: JanusPolicy, rollouts: Rollouts) -> Rollouts:
    return with_sampling(rollouts, guidance_scale=rollouts.sampling.guidance_scale + 0.1)


def in_the_wrong_role(policy: JanusPolicy, rollouts: Rollouts) -> Rollouts:
    user, assistant = policy.processor.tokenizer.convert_tokens_to_ids([USER, ASSISTANT])

    def swapped(ids: Tensor) -> Tensor:
        return torch.where(ids == user, assistant, ids)

    fresh = tuple(dataclasses.replace(context, ids=swapped(context.ids)) for context in rollouts.fresh_contexts)
    return dataclasses.replace(rollouts, prompt_ids=swapped(rollouts.prompt_ids), fresh_contexts=fresh)


BREAKS: dict[str, Callable[[JanusPolicy, Rollouts], Rollouts]] = {
    "none": lambda policy, rollouts: rollouts,
    "temperature +5 %": hotter,
    "guidance +0.1": more_guided,
    "role": in_the_wrong_role,
}


class BrokenPolicy(JanusPolicy):
    """A policy whose scorer has a bug; `change` is what it does to rollouts before it scores them.

    It samples the same only once, to save time.
    """

    change: Callable[[JanusPolicy, Rollouts], Rollouts] = BREAKS["none"]

    def log_probs(self, rollouts: Rollouts) -> Any:
        return super().log_probs(type(self).change(self, rollouts))

    def sample(self, prompts: Any, sampling: Any, **options: Any) -> Rollouts:
        key = (str(sampling), options["seed"], options["group_size"])
        known: dict[Any, Rollouts] = self.__dict__.setdefault("sampled", {})
        if key not in known:
            if known and next(iter(known))[1] != options["seed"]:
                known.clear()
            known[key] = super().sample(prompts, sampling, **options)
        return known[key]


def measure(policy: Any, name: str, seed: int) -> dict[str, Any]:
    """Run one check."""
    BrokenPolicy.change = BREAKS[name]
    result = check_policy(policy, seed=seed)
    failed = [row.name for row in result.rows if not row.ok]
    return {"ok": result.ok, "share": max(d.share for d in result.deviations.values()), "failed": failed}


def cells(seeds: int, checkpoints: list[str], dtypes: list[str]) -> Iterator[tuple[str, str, str, int]]:
    """All checks, a seed at a time so that a run that is stopped has some of each."""
    for seed in range(seeds):
        for checkpoint in checkpoints:
            for dtype in dtypes:
                for name in BREAKS:
                    yield checkpoint, dtype, name, seed


def print_table(rows: list[dict[str, Any]]) -> None:
    print(f"{'checkpoint':12}{'dtype':14}{'break in the scorer':22}{'passed':>10}   share of its limit")
    for key in dict.fromkeys((r["checkpoint"], r["dtype"], r["break"]) for r in rows):
        mine = [r for r in rows if (r["checkpoint"], r["dtype"], r["break"]) == key]
        passed, found = sum(r["ok"] for r in mine), [r["share"] for r in mine]
        closest = f"at most {max(found):.2f}" if key[2] == "none" else f"at least {min(found):.3g}"
        print(f"{key[0]:12}{key[1]:14}{key[2]:22}{passed:>4} of {len(mine):>2}   {closest}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/check_power.jsonl"))
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--checkpoints", nargs="*", default=list(CHECKPOINTS), choices=CHECKPOINTS)
    parser.add_argument("--dtypes", nargs="*", default=list(DTYPES), choices=list(DTYPES))
    options = parser.parse_args()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    lines = options.out.read_text().splitlines() if options.out.exists() else []
    rows = [json.loads(line) for line in lines]
    done = {(r["checkpoint"], r["dtype"], r["break"], r["seed"]) for r in rows}
    policies: dict[tuple[str, str], Any] = {}
    with tempfile.TemporaryDirectory() as folder, options.out.open("a") as file:
        random = random_janus(Path(folder) / "deep", layers=24, image_size=32)
        for checkpoint, dtype, name, seed in cells(options.seeds, options.checkpoints, options.dtypes):
            if (checkpoint, dtype, name, seed) in done:
                continue
            if (checkpoint, dtype) not in policies:
                weights, precision = DTYPES[dtype]
                path = checkpoint_path() if checkpoint == "lab" else random
                policy: Any = load_policy(path, dtype=weights, precision=precision)
                policy.__class__ = BrokenPolicy
                policies[checkpoint, dtype] = policy
            row = {"checkpoint": checkpoint, "dtype": dtype, "break": name, "seed": seed}
            row |= measure(policies[checkpoint, dtype], name, seed)
            rows.append(row)
            file.write(json.dumps(row) + "\n")
            file.flush()
    print_table(rows)


if __name__ == "__main__":
    main()
