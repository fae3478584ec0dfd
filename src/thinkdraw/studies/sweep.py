"""Run a sweep: cells of recipes and settings, several seeds each, compared.

    thinkdraw sweep lab_objectives policy=runs/quickstart/sft

Every cell starts from the same policy. All are judged on the same test prompts, in one table and one plot with their costs:
see `compare.py`. Finished cells are not run again. Cells that learn from a store have one store per seed, sampled with that
seed, so that the luck of sampling is part of the interval.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from thinkdraw.config import StrictModel, save_config
from thinkdraw.errors import UserError
from thinkdraw.policies.opening import policy_path
from thinkdraw.recipes import sample as sampling
from thinkdraw.recipes.catalog import read_config, run_config
from thinkdraw.recipes.sample import SampleConfig
from thinkdraw.rollouts import RolloutStore
from thinkdraw.runtime.files import only_writer_of_out
from thinkdraw.runtime.json_types import JsonObject
from thinkdraw.studies.compare import Fact, FinishedRun, JudgingSettings, compare_groups


class Cell(StrictModel):
    """A configuration with overrides: one row of the sweep's table."""

    config: str = Field(description="Configuration that the cell trains: a shipped name or a YAML file.")
    settings: list[str] = Field(
        default=[],
        description="Settings that the cell changes, as key.sub=value; {store} stands for the rollout store of "
        "the seed.",
    )


class SweepConfig(JudgingSettings):
    """Settings of a sweep."""

    recipe: Literal["sweep"] = Field(
        default="sweep", description="Names the recipe that this configuration is for; always `sweep`."
    )
    out: Path = Field(
        default=Path("runs/sweep"),
        description="Folder of cells, stores, table and plot; finished cells are not run again.",
    )
    policy: str = Field(
        default="lab",
        description="The policy that every cell starts from: checkpoint folder, run folder (its best "
        "checkpoint), model id, or `lab`.",
    )
    store: SampleConfig | None = Field(
        default=None,
        description="How a rollout store is sampled for each seed, for cells that name {store}; null samples none.",
    )
    cells: dict[str, Cell] = Field(
        min_length=1, description="Name of each cell, and the configuration and settings it trains with."
    )
    seeds: list[Annotated[int, Field(ge=0)]] = Field(
        default=[0, 1, 2],
        min_length=1,
        description="Seeds of training and of the stores; every cell runs once with each.",
    )
    varies: list[Fact] = Field(
        default=[],
        description="What the cells may differ in although they are compared: base (the policy they began with), "
        "prompts, sampling or validation.",
    )


@only_writer_of_out
def run(config: SweepConfig, say: Callable[[str], None] = print) -> Path:
    """Run what is not finished yet, then compare all cells.

    Writes summary.json, table.md and comparison.svg, and returns their folder.
    Raises UserError.
    """
    save_config(config, config.out / "config.yaml")
    start = policy_path(config.policy)
    naming = [name for name, cell in config.cells.items() if any("{store}" in text for text in cell.settings)]
    if naming and config.store is None:
        raise UserError(
            f"cell {naming[0]} names {{store}}, but the sweep has no store. Add store: to its configuration."
        )
    about: JsonObject = {"policy": config.policy}
    stores = {seed: config.out / "stores" / f"seed_{seed}" for seed in config.seeds}
    if config.store is not None:
        about["stores"] = [_sample(config.store, start, seed, folder, say) for seed, folder in stores.items()]
    groups = {}
    for name, cell in config.cells.items():
        folders = [config.out / "cells" / _file(name) / f"seed_{seed}" for seed in config.seeds]
        for seed, folder in zip(config.seeds, folders, strict=True):
            overrides = [f"out={folder}", f"policy={start}", f"seed={seed}"]
            settings = [text.replace("{store}", str(stores[seed])) for text in cell.settings]
            run_config(read_config(cell.config, [*overrides, *settings]))
        groups[name] = [FinishedRun.read(folder, config.select) for folder in folders]
    return compare_groups(groups, config, config.out, config.varies, about, say)


def _sample(config: SampleConfig, policy: str, seed: int, folder: Path, say: Callable[[str], None]) -> JsonObject:
    """Sample a seed's store; return what summary.json says about it."""
    sampling.run(config.model_copy(update={"out": folder, "policy": policy, "seed": seed}))
    store = RolloutStore.open(folder)
    about: JsonObject = {"seed": seed, "rollouts": len(store), "content_hash": store.info()["content_hash"]}
    say(f"store of seed {seed}: {about['rollouts']} rollouts, {about['content_hash']}")
    return about


def _file(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-." else "_" for c in name)
