"""Prints where the alarms of `recipes/phase/hacking/alarms.py` ring in finished GRPO runs, whose limits come from this table.

    thinkdraw train lab_grpo policy=runs/quickstart/sft reward.name=orm \\
        "reward.settings.questioner={name: policy, policy: lab}" max_steps=20 seed=0 out=runs/hacked_0 \\
        "validation={every: 2, monitors: [{name: lab-detector}], prompts: {split: validation, count: 128}}"
    thinkdraw train lab_grpo policy=runs/quickstart/sft seed=1 out=runs/healthy_1 \\
        "validation={every: 5, monitors: [{name: lab-judge}], prompts: {split: validation, count: 64}}"
    thinkdraw train lab_grpo policy=runs/quickstart/sft prompts_per_phase=16 max_steps=40 reward.name=lab-judge \\
        "validation={every: 2, monitors: [{name: lab-detector}], prompts: {split: validation, count: 64}}" out=runs/judge_0
    python bench/alarms.py runs/hacked_0 runs/healthy_1 runs/judge_0 runs/quickstart/grpo

The third form of run, also with reward.name=lab-clip, and with `bright` of one's own (mean of rollouts.pictures / 255).

A cell is the step of the first alarm, or "quiet", and in brackets the smallest and the largest factor by which the column
changed against the run's first phases. Runs of versions that did not measure pictures are measured from their store.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from thinkdraw.policies import load_policy
from thinkdraw.policies.opening import policy_path
from thinkdraw.recipes.phase.hacking.alarms import RULES, alarms, changes
from thinkdraw.recipes.phase.hacking.pictures import group_diversity, group_std, pixel_measures
from thinkdraw.rollouts import RolloutStore
from thinkdraw.runtime.tracking import MetricsLog


def rows_of(run: Path, policy: str) -> list[dict]:
    """Read a run's rows; pictures that it did not measure are decoded from its store."""
    rows = MetricsLog.read(run / "metrics.jsonl")
    if "pictures/diversity" in rows[0]:
        return rows
    store, decoder = RolloutStore.open(run / "store"), load_policy(policy_path(policy))
    scores = store.scores(store.judges[0])
    for row, shard in zip(rows, store.shards()):
        rollouts, ids = shard.rollouts(), shard.row_ids
        pictures = decoder.decode_tokens(rollouts.image_tokens())
        columns = {f"pictures/{name}": values for name, values in pixel_measures(pictures).items()}
        columns["pictures/diversity"] = group_diversity(pictures, rollouts.group_size)
        columns["reward_group_std"] = group_std(torch.as_tensor(scores[ids.start : ids.stop]), rollouts.group_size)
        row |= {name: float(values.nanmean()) for name, values in columns.items()}
    return rows


def first_rings(rows: list[dict]) -> dict[str, int]:
    """Column → step of its first alarm, as the run would have printed it."""
    first: dict[str, int] = {}
    for end in range(1, len(rows) + 1):
        for alarm in alarms(rows[:end]):
            name = "held-out judge" if alarm.column.startswith("monitor/") else alarm.column
            first.setdefault(name, rows[end - 1]["step"])
    return first


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--policy", default="lab", help="decodes the pictures of older runs (default: lab)")
    asked = parser.parse_args()
    columns = [rule.column for rule in RULES]
    print(f"| run | steps | {' | '.join(c.removeprefix('pictures/') for c in columns)} | held-out judge |")
    print("|---" * (len(columns) + 3) + "|")
    for run in asked.runs:
        rows = rows_of(run, asked.policy)
        first = first_rings(rows)
        cells = []
        for rule in RULES:
            moved = np.exp(changes(rule, rows)[1])
            said = f"**{first[rule.column]}**" if rule.column in first else "quiet"
            cells.append(f"{said} ({moved.min():.2f} to {moved.max():.2f})" if len(moved) else "too short")
        judged = any(row.get("parted") is not None for row in rows)
        held_out = f"**{first['held-out judge']}**" if "held-out judge" in first else "quiet" if judged else "none"
        print(f"| {run.name} | {rows[-1]['step']} | {' | '.join(cells)} | {held_out} |")


if __name__ == "__main__":
    main()
