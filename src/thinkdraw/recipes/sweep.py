"""Cells of recipes and settings × training seeds, all from one policy, judged on the same prompts, in one table.

    thinkdraw sweep lab_objectives policy=runs/quickstart/sft

A cell that is finished is not run again. Each row states what it cost: pictures sampled, sequences trained, forward passes
of a reference, seconds. Best-of-N of the untrained policy with the same reward is a row of its own.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from thinkdraw.benchmarks.lab import Split, compare, evaluate_lab
from thinkdraw.config import StrictModel, save_config
from thinkdraw.errors import UserError
from thinkdraw.recipes import sampling
from thinkdraw.recipes.catalog import read_config, run_config
from thinkdraw.recipes.grpo import RewardSettings
from thinkdraw.recipes.quickstart import EvaluationSettings
from thinkdraw.recipes.rewards import open_reward
from thinkdraw.recipes.sampling import SampleConfig
from thinkdraw.recipes.training import load_trained, policy_path
from thinkdraw.rollouts import RolloutStore
from thinkdraw.runtime.files import atomic_write_json, atomic_write_text
from thinkdraw.runtime.tracking import MetricsLog
from thinkdraw.search import BestOfN

COSTS = ("pictures_sampled", "sequences_trained", "reference_forwards", "seconds")


class Cell(StrictModel):
    config: str = Field(description="A shipped configuration's name, or a YAML file.")
    settings: list[str] = Field(default=[], description="key.sub=value; {store} is the sweep's rollout store.")


class SweepConfig(StrictModel):
    recipe: Literal["sweep"] = "sweep"
    out: Path = Path("runs/sweep")
    policy: str = Field(default="lab", description="Where every cell starts from.")
    store: SampleConfig | None = Field(
        default=None, description="Sampled once from the policy, for cells that name it."
    )
    cells: dict[str, Cell] = Field(min_length=1)
    seeds: list[int] = Field(default=[0, 1, 2], min_length=1, description="Of training.")
    best_of: int | None = Field(default=None, ge=2, description="Also judge best-of-N of the untrained policy.")
    reward: RewardSettings = Field(default=RewardSettings(), description="What best-of-N chooses by.")
    evaluation: EvaluationSettings = EvaluationSettings(questions_per_type=0)
    out_of_domain_prompts: int = Field(default=192, ge=0, description="0 leaves it out.")


def run(config: SweepConfig, say: Callable[[str], None] = print) -> Path:
    """Run what is not finished yet, and write summary.json and table.md. Raises UserError."""
    config.out.mkdir(parents=True, exist_ok=True)
    save_config(config, config.out / "config.yaml")
    start = policy_path(config.policy)
    store = config.out / "store"
    summary: dict[str, Any] = {"policy": load_trained(start).revision, "seeds": config.seeds, "cells": {}}
    if config.store is not None:
        sampling.run(config.store.model_copy(update={"out": store, "policy": start}))
        found = RolloutStore.open(store)
        summary["store"] = {"rollouts": len(found), "content_hash": found.info()["content_hash"]}
        say(f"store: {len(found)} rollouts, {summary['store']['content_hash']}")

    base = _evaluated(config, "untrained", load_trained(start))
    summary["cells"]["untrained"] = _row(config, [base], base, [])
    if config.best_of:
        chooser = BestOfN(
            load_trained(start), open_reward(config.reward.name, **config.reward.settings), config.best_of
        )
        name = f"best of {config.best_of}"
        summary["cells"][name] = _row(config, [_evaluated(config, name, chooser)], base, [])
        say(_line(name, summary["cells"][name]))
    for name, cell in config.cells.items():
        if any("{store}" in text for text in cell.settings) and config.store is None:
            raise UserError(f"cell {name} names {{store}}, and the sweep has none. Add store: to its configuration.")
        settings = [text.replace("{store}", str(store)) for text in cell.settings]
        judged, costs = [], []
        for seed in config.seeds:
            folder = config.out / "cells" / _file(name) / f"seed_{seed}"
            given = [f"out={folder}", f"policy={start}", f"seed={seed}"]
            run_config(read_config(cell.config, [*given, *settings]))
            costs.append(MetricsLog.read(folder / "metrics.jsonl")[-1])
            judged.append(_evaluated(config, f"{_file(name)}-seed{seed}", load_trained(folder)))
        summary["cells"][name] = _row(config, judged, base, costs)
        say(_line(name, summary["cells"][name]))
    atomic_write_json(config.out / "summary.json", summary)
    atomic_write_text(config.out / "table.md", table(summary))
    return config.out


def _evaluated(config: SweepConfig, name: str, policy: Any) -> dict[Split, Path]:
    """Draw and judge in domain and out of domain what is not judged yet; split → folder."""
    asked = config.evaluation
    folders: dict[Split, Path] = {}
    counts: dict[Split, int] = {"test": asked.prompts, "ood": config.out_of_domain_prompts}
    for split, count in counts.items():
        if count:
            folders[split] = config.out / "eval" / split / _file(name)
            evaluate_lab(policy, asked.family, split, count, asked.samples, asked.sampling, asked.seed, folders[split])
    return folders


def _row(
    config: SweepConfig, judged: Sequence[dict[Split, Path]], base: dict[Split, Path], costs: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Differences to the untrained policy, all seeds pooled and each alone, and what one seed cost."""
    row: dict[str, Any] = {name: sum(c.get(name, 0) for c in costs) / len(costs) if costs else 0 for name in COSTS}
    for split in base:
        pooled = compare([folders[split] for folders in judged], base[split])
        each = [compare(folders[split], base[split]).value for folders in judged]
        row[split] = {"value": pooled.value, "low": pooled.low, "high": pooled.high, "per_seed": each}
        row[split] |= {
            "pictures": config.evaluation.samples
            * (config.evaluation.prompts if split == "test" else config.out_of_domain_prompts)
        }
    return row


def _line(name: str, row: dict[str, Any]) -> str:
    found = row["test"]
    return f"{name}: {100 * found['value']:+.1f} points over the untrained policy [{100 * found['low']:+.1f}, {100 * found['high']:+.1f}]"


def _file(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-." else "_" for c in name)


def table(summary: dict[str, Any]) -> str:
    """Markdown: a row per cell, points over the untrained policy in and out of domain, and costs of one seed."""
    splits = [s for s in ("test", "ood") if s in next(iter(summary["cells"].values()))]
    words = {"test": "in domain", "ood": "out of domain"}
    heads = [h for s in splits for h in (f"{words[s]}, points", "95 % interval", "each seed")]
    lines = [
        "| | " + " | ".join([*heads, "pictures sampled", "sequences trained", "reference forwards", "seconds"]) + " |",
        "|---" * (len(heads) + 5) + "|",
    ]
    for name, row in summary["cells"].items():
        cells = []
        for s in splits:
            f = row[s]
            cells += [f"{100 * f['value']:+.1f}", f"{100 * f['low']:+.1f} – {100 * f['high']:+.1f}"]
            cells += [", ".join(f"{100 * v:+.1f}" for v in f["per_seed"])]
        cells += [f"{row[c]:.0f}" for c in COSTS]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    below = [n for n, row in summary["cells"].items() if n != "untrained" and row["test"]["low"] <= 0]
    if below:
        lines += ["", f"Not above the untrained policy (interval reaches 0): {', '.join(below)}."]
    return "\n".join(lines) + "\n"
