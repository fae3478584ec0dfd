"""Sample a rollout store: a group of rollouts per prompt, judged too if asked.

    thinkdraw sample lab -o runs/store -n 256 rewards=[lab-detector]

The store is written shard by shard. Seed and the prompt's number alone decide a rollout, so a run that was stopped goes on
to the same store.
"""

import logging
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

from pydantic import Field

from thinkdraw.config import StrictModel, load_config, save_config
from thinkdraw.console import tell
from thinkdraw.errors import HeldError, UserError
from thinkdraw.policies.drawing import DRAWING, OVERRIDES, choose_drawing
from thinkdraw.policies.opening import load_trained, policy_path
from thinkdraw.recipes.phase.rollout import draw_seeds
from thinkdraw.recipes.score import display_row, judge_of, score_missing
from thinkdraw.rewards.opening import RewardSettings, open_reward
from thinkdraw.rollouts import RolloutStore
from thinkdraw.runtime.device import pick_device, set_threads
from thinkdraw.runtime.files import only_writer, only_writer_of_out, sweep_leftovers
from thinkdraw.runtime.inputs.run_inputs import CHANGED_INPUTS, ChangedInputs, Input, Inputs
from thinkdraw.training.data import DataSettings, load_prompts, prompts_input, prompts_that_fit
from thinkdraw.training.display import Display
from thinkdraw.types import Policy, Prompt, SamplingOverrides, ThoughtFormat

logger = logging.getLogger(__name__)

# Settings that may differ between a run that was stopped and its continuation.
MAY_CHANGE = {"count", "rewards", "device", "num_threads", "log_every", "changed_inputs"}


class SampleConfig(StrictModel):
    """Settings of sampling a rollout store."""

    recipe: Literal["sample"] = Field(
        default="sample", description="Names the recipe that this configuration is for; always `sample`."
    )
    out: Path = Field(default=Path("runs/store"), description="Folder of the rollout store; a stopped one goes on.")
    policy: str = Field(
        default="lab",
        description="The policy that samples: checkpoint folder, run folder (its best checkpoint), model id, or `lab`.",
    )
    prompts: DataSettings = Field(
        default=DataSettings(), description="Prompts to sample for: where they come from and how many."
    )
    count: int | None = Field(
        default=None,
        ge=1,
        description="Groups to sample: the prompts in order, and around again where there are fewer; null is "
        "each prompt once.",
    )
    drawing: str | None = Field(default=None, description=DRAWING)
    sampling: SamplingOverrides = Field(default=SamplingOverrides(), description=OVERRIDES)
    group_size: int = Field(
        default=8,
        ge=1,
        description="Rollouts per prompt. Learning from differences needs at least 2; 1 is enough to filter by score.",
    )
    prompts_per_shard: int = Field(
        default=32,
        ge=1,
        description="Prompts whose groups are sampled together and written as one file; a killed run loses at "
        "most one.",
    )
    seed: int = Field(
        default=0, ge=0, description="Seed of the rollouts: each follows from it and its prompt's place alone."
    )
    rewards: list[str] = Field(
        default=[], description="Names of rewards that score each shard as soon as it is sampled; empty scores nothing."
    )
    changed_inputs: ChangedInputs = Field(default="refuse", description=CHANGED_INPUTS)
    device: str = Field(
        default="auto",
        description="Where the network runs: auto, cpu, cuda or mps. auto takes an accelerator where there is one.",
    )
    dtype: Literal["fp32", "bf16"] = Field(
        default="fp32", description="Type of the weights in memory; bf16 needs half of fp32's."
    )
    precision: Literal["fp32", "bf16"] = Field(
        default="bf16",
        description="Type of the forward pass. With fp32 a trainer repeats the stored log-probs to 1e-4; bf16 is "
        "faster.",
    )
    num_threads: int | None = Field(
        default=None, ge=1, description="CPU threads that torch uses; null follows OMP_NUM_THREADS."
    )
    log_every: int = Field(
        default=1,
        ge=1,
        description="Shards per printed line where the output is no terminal; a terminal shows a progress bar.",
    )


@only_writer_of_out
def run(config: SampleConfig) -> Path:
    """Fill the store up to `count` groups, and return its folder.

    Raises UserError; HeldError, a UserError, for a folder with the store of another run.
    """
    set_threads(config.num_threads)
    prompts = load_prompts(config.prompts, config.out)
    policy = load_trained(
        config.policy, device=str(pick_device(config.device)), dtype=config.dtype, precision=config.precision
    )
    drawing = choose_drawing(policy, config.sampling, config.drawing)
    tell(f"{config.policy} {drawing.line()}")
    # Written out, so that a store goes on only as it was begun.
    written_out = SamplingOverrides.model_validate(drawing.sampling.model_dump())
    config = config.model_copy(update={"sampling": written_out, "drawing": None})
    prompts = prompts_that_fit(policy, prompts, config.prompts, drawing.sampling)
    count = config.count or len(prompts)
    rewards = {name: open_reward(name) for name in config.rewards}
    store = open_store(config, policy, prompts, drawing.sampling.thought)
    num_missing = max(0, count - store.num_groups)
    with ExitStack() as opened:
        for name, reward in rewards.items():
            column = store.add_judge(reward.name, judge_of(reward, RewardSettings(name=name)))
            opened.enter_context(only_writer(column.folder))
        shards = store.num_shards + -(-num_missing // config.prompts_per_shard)
        display = opened.enter_context(Display("sample", shards, config.log_every))
        # A run that was stopped, or one with more rewards than before, may have shards without scores.
        for reward in rewards.values():
            for index, scores in score_missing(store, reward.name, reward, lambda _: policy):
                display.show(index + 1, display_row(reward.name, scores), (reward.name,))
        while (cursor := store.num_groups) < count:
            size = min(config.prompts_per_shard, count - cursor)
            chosen = [prompts[(cursor + i) % len(prompts)] for i in range(size)]
            seeds = draw_seeds(config.seed, 0, cursor, size, config.group_size)
            rollouts = policy.sample(
                chosen, drawing.sampling, group_size=config.group_size, seeds=seeds, decode=bool(rewards)
            )
            verdicts = {reward.name: reward(rollouts) for reward in rewards.values()}
            scores = {name: v.rewards for name, v in verdicts.items()}
            components = {name: v.parts for name, v in verdicts.items()}
            index = store.append(rollouts, scores, _lasting_name(config.policy), components=components, at_group=cursor)
            row = {key: value for name in scores for key, value in display_row(name, scores[name]).items()}
            display.show(index + 1, row, tuple(row))
    return config.out


def _lasting_name(policy: str) -> str:
    """Name a checkpoint by a name that stays valid.

    An absolute path holds from every folder; the path of a checkpoint holds when its run goes on to better ones.
    """
    path = policy_path(policy)
    return str(Path(path).resolve()) if policy != "lab" and Path(path).is_dir() else policy


def open_store(config: SampleConfig, policy: Policy, prompts: Sequence[Prompt], thought: ThoughtFormat) -> RolloutStore:
    """Open this run's store, or create it; a store without a shard is created again.

    Raises HeldError if `out` holds rollouts of another configuration, policy or list of prompts.
    """
    config_file, exists = config.out / "sample.yaml", (config.out / "store.json").exists()
    if exists and not config_file.exists():
        raise UserError(f"{config.out} holds a store that `thinkdraw sample` did not make. Choose another out=.")
    inputs, groups = Inputs(config.out, config.changed_inputs), 0
    if exists:
        store = RolloutStore.open(config.out)
        if groups := store.num_groups:
            _refuse_other_store(config, store, policy)
        else:
            shutil.rmtree(config.out / "scores", ignore_errors=True)
            (config.out / "store.json").unlink()
    setting, source = "prompts.source", config.prompts.named
    # A longer list of prompts that begins as before changes no rollout: it is noted only after the check against the
    # former list.
    has_grown = _has_grown(prompts, inputs.noted(setting), source, groups)
    if not has_grown:
        inputs.note(setting, prompts_input(prompts, source))
    for change in inputs.hold(groups, "group"):
        logger.warning("%s", change)
    if has_grown:
        inputs.note(setting, prompts_input(prompts, source))
    save_config(config, config_file)
    inputs.write()
    store = RolloutStore.open(config.out) if groups else RolloutStore.create(config.out, policy, thought)
    if (shards := config.out / "shards").is_dir():
        sweep_leftovers(shards)
    return store


def _refuse_other_store(config: SampleConfig, store: RolloutStore, policy: Policy) -> None:
    """Raise HeldError if the store was sampled with another configuration or policy."""
    before, now = (c.model_dump(mode="json") for c in (load_config(SampleConfig, config.out / "sample.yaml"), config))
    if differing := [name for name in now if name not in MAY_CHANGE and before[name] != now[name]]:
        was = ", ".join(f"{name} ({before[name]} there, {now[name]} now)" for name in differing)
        raise HeldError(
            f"{config.out} was sampled with another config: {was}. Choose another out=, or the same values."
        )
    try:
        store.check_policy(policy)
        store.check_revision(policy.revision)
    except UserError as error:
        raise HeldError(str(error)) from error


def _has_grown(prompts: Sequence[Prompt], noted: Input | None, source: str, groups: int) -> bool:
    """Whether the prompts are those that were noted, with more after them.

    Only before the noted ones have been drawn a second time: then the added ones would have come first.
    """
    if noted is None or noted.count is None or not groups <= noted.count < len(prompts):
        return False
    if prompts_input(prompts[: noted.count], source).digest != noted.digest:
        return False
    logger.warning("%s has %d more prompts than before: they are used too", source, len(prompts) - noted.count)
    return True
