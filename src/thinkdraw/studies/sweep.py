"""Cells of recipes and settings, several seeds of each, judged on the same test prompts: one table and one plot at the end.

    thinkdraw sweep lab_objectives policy=runs/quickstart/sft

Finished cells are not run again. Every cell starts from the same policy and states what it cost: see `compare.py`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from pydantic import Field

from thinkdraw.config import StrictModel, save_config
from thinkdraw.errors import UserError
from thinkdraw.policies.opening import policy_path
from thinkdraw.recipes import sample as sampling
from thinkdraw.recipes.catalog import read_config, run_config
from thinkdraw.recipes.sample import SampleConfig
from thinkdraw.rollouts import RolloutStore
from thinkdraw.runtime.json_types import JsonObject
from thinkdraw.studies.compare import Fact, FinishedRun, JudgingSettings, compare_groups


class Cell(StrictModel):
    config: str = Field(description="A shipped configuration's name, or a YAML file.")
    settings: list[str] = Field(default=[], description="key.sub=value; {store} is the sweep's rollout store.")


class SweepConfig(JudgingSettings):
    recipe: Literal["sweep"] = "sweep"
    out: Path = Path("runs/sweep")
    policy: str = Field(default="lab", description="Where every cell starts from.")
    store: SampleConfig | None = Field(
        default=None, description="Sampled once from the policy, for cells that name it."
    )
    cells: dict[str, Cell] = Field(min_length=1)
    seeds: list[int] = Field(default=[0, 1, 2], min_length=1, description="Of training.")
    varies: list[Fact] = Field(
        default=[], description="What the cells may differ in: prompts, for one that varies them."
    )


def run(config: SweepConfig, say: Callable[[str], None] = print) -> Path:
    """Run what is not finished yet, and write summary.json, table.md and comparison.svg. Raises UserError."""
    config.out.mkdir(parents=True, exist_ok=True)
    save_config(config, config.out / "config.yaml")
    start, store = policy_path(config.policy), config.out / "store"
    about: JsonObject = {"policy": config.policy}
    if config.store is not None:
        sampling.run(config.store.model_copy(update={"out": store, "policy": start}))
        found = RolloutStore.open(store)
        about["store"] = {"rollouts": len(found), "content_hash": found.info()["content_hash"]}
        say(f"store: {len(found)} rollouts, {about['store']['content_hash']}")
    groups = {}
    for name, cell in config.cells.items():
        if any("{store}" in text for text in cell.settings) and config.store is None:
            raise UserError(f"cell {name} names {{store}}, and the sweep has none. Add store: to its configuration.")
        settings = [text.replace("{store}", str(store)) for text in cell.settings]
        folders = [config.out / "cells" / _file(name) / f"seed_{seed}" for seed in config.seeds]
        for seed, folder in zip(config.seeds, folders, strict=True):
            given = [f"out={folder}", f"policy={start}", f"seed={seed}"]
            run_config(read_config(cell.config, [*given, *settings]))
        groups[name] = [FinishedRun.read(folder) for folder in folders]
    return compare_groups(groups, config, config.out, config.varies, about, say)


def _file(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-." else "_" for c in name)
