"""Plan a configuration on a GPU: bytes, seconds, and changes that make it fit."""

import dataclasses
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from pydantic import Field

from thinkdraw.config import StrictModel
from thinkdraw.errors import UserError
from thinkdraw.planning.judges import judges_on_the_gpu
from thinkdraw.planning.memory import Load, Parts, learning_bytes, sampling_bytes, sampling_row_bytes, saving_bytes
from thinkdraw.planning.seconds import GPUS, learning_seconds, sampling_seconds
from thinkdraw.planning.shapes import find_shape
from thinkdraw.policies.lora import LoraSettings
from thinkdraw.policies.opening import policy_path
from thinkdraw.policies.sampling.memory import MAX_ROWS, rows_that_fit
from thinkdraw.recipes.phase.config import GrpoConfig
from thinkdraw.recipes.sft import SftConfig
from thinkdraw.runtime.json_types import JsonObject

USABLE_FRAC = 0.92  # of a GPU's memory; CUDA itself and fragmentation take the rest
# Changes in the order in which they are tried, the cheapest first: override → (setting, value).
CHANGES: dict[str, tuple[str, Any]] = {
    "gradient_checkpointing=true": ("gradient_checkpointing", True),
    "dtype=bf16": ("dtype", "bf16"),
    "sharding=fsdp2": ("sharding", "fsdp2"),
    "optimiser.offload=true": ("optimiser.offload", True),
    "lora={rank: 16}": ("lora", LoraSettings.model_validate({"rank": 16})),
}


class PlanConfig(StrictModel):
    """The machine that a configuration is planned for."""

    gpu: str = Field(
        default="h100", description="Model of the GPU: a100-40, a100-80, h100, h100-pcie, h200, l4, l40s or rtx4090."
    )
    gpus: int = Field(default=1, ge=1, description="How many of them the run has; each runs one process.")
    prompt_tokens: int = Field(
        default=40, ge=1, description="Length of a prompt with the chat form around it; longer ones need more memory."
    )


@dataclass(frozen=True)
class Plan:
    """The need of one process of a run on `num_gpus` GPUs, in bytes and seconds.

    Of a recipe that does not sample, `sampling` is empty and `rollouts` is 0.
    at_once: rollouts drawn together. num_steps: optimiser steps that the seconds are for. uncounted: judges of unknown size.
    """

    gpu: str
    num_gpus: int
    usable: float
    sampling: Parts
    learning: Parts
    saving: Parts
    rollouts: int
    at_once: int
    num_steps: int
    seconds_sampling: float
    seconds_learning: float
    uncounted: list[str] = dataclasses.field(default_factory=list)

    @property
    def needed(self) -> float:
        """Bytes at the worst moment."""
        return max(sum(parts.values()) for parts in (self.sampling, self.learning, self.saving))

    @property
    def fits(self) -> bool:
        """Whether the GPU has enough memory."""
        return self.needed <= self.usable


def plan(config: StrictModel, gpu: str, num_gpus: int, prompt_tokens: int) -> Plan:
    """Compute what a configuration needs.

    config: of recipe grpo or sft. prompt_tokens: of a prompt with its chat template. Raises UserError.
    """
    if gpu not in GPUS:
        raise UserError(f"gpu={gpu} is not in the planner's table. Choose one of {', '.join(GPUS)}.")
    if not isinstance(config, GrpoConfig | SftConfig):
        recipe = getattr(config, "recipe", "")
        raise UserError(f"recipe={recipe}: the planner knows only grpo and sft. Give a configuration of these.")
    load = load_of(config, num_gpus, prompt_tokens)
    usable = USABLE_FRAC * GPUS[gpu].memory
    if isinstance(config, SftConfig):
        rows = -(-config.batch_rows // num_gpus)
        seconds = learning_seconds(load, GPUS[gpu], rows, more_forwards=0)
        return Plan(gpu, num_gpus, usable, {}, learning_bytes(load), saving_bytes(load), 0, 0, 1, 0.0, seconds)
    rollouts = -(-config.prompts_per_phase // num_gpus) * config.group_size
    together = -(-rollouts // config.judge_chunks)
    judges, uncounted = judges_on_the_gpu([config.reward, *config.validation.monitors], config.policy)
    beside: Parts = {"judges": judges} if judges else {}
    free = usable - sum((sampling_bytes(load, 0, 0) | beside).values())
    at_once = max(1, rows_that_fit(sampling_row_bytes(load), max(0, int(free)), MAX_ROWS) // load.rows_per_rollout)
    at_once = min(at_once, together)
    num_steps = config.minibatches * config.passes
    forwards = (config.beta > 0) + (config.old_log_probs == "recomputed" and num_steps > 1) / config.passes
    return Plan(
        gpu,
        num_gpus,
        usable,
        sampling=sampling_bytes(load, at_once * load.rows_per_rollout, 1) | beside,
        learning=learning_bytes(load) | beside,
        saving=saving_bytes(load) | beside,
        rollouts=rollouts,
        at_once=at_once,
        num_steps=num_steps,
        seconds_sampling=config.judge_chunks
        * sampling_seconds(load, GPUS[gpu], together, at_once, load.rows_per_rollout),
        seconds_learning=config.passes * learning_seconds(load, GPUS[gpu], rollouts, forwards, config.minibatches),
        uncounted=uncounted,
    )


def load_of(config: GrpoConfig | SftConfig, num_gpus: int, prompt_tokens: int) -> Load:
    """Describe what one process of a configuration does."""
    is_grpo = isinstance(config, GrpoConfig)
    settings = config.sampling if is_grpo else config
    thought = 0 if settings.thought == "off" else settings.max_thought_tokens + 1
    # With `rewrite` the picture has a context of its own, which contains prompt and thought once more.
    before = 2 * prompt_tokens + thought if settings.thought == "rewrite" else prompt_tokens
    return Load(
        shape=find_shape(policy_path(config.policy)), dtype=config.dtype, precision=config.precision, lora=config.lora,
        checkpointing=config.gradient_checkpointing, reference=is_grpo and config.beta > 0,
        offload=config.optimiser.offload,
        shards=num_gpus if config.sharding == "fsdp2" else 1,
        rows_per_rollout=2 if is_grpo and config.sampling.guidance_scale != 1 and config.guidance_in_loss == "same" else 1,
        micro_rows=min(config.micro_rows, _rows_per_step(config, num_gpus)), prompt_tokens=before, thought_tokens=thought,
    )  # fmt: skip


def _rows_per_step(config: GrpoConfig | SftConfig, num_gpus: int) -> int:
    if isinstance(config, SftConfig):
        return -(-config.batch_rows // num_gpus)
    return -(-config.prompts_per_phase // (num_gpus * config.minibatches)) * config.group_size


def changes_that_fit(config: GrpoConfig | SftConfig, gpu: str, num_gpus: int, prompt_tokens: int) -> list[str] | None:
    """Find the fewest overrides that make the configuration fit; None if none do.

    Smaller micro-batches are tried before anything else, since they cost least.
    """
    known = {name: change for name, change in CHANGES.items() if _is_a_change(config, *change, num_gpus)}
    for count in range(len(known) + 1):
        for names in combinations(known, count):
            changed = config
            for name in names:
                changed = _changed(changed, *known[name])
            if changed.sharding != "none" and changed.optimiser.offload:
                continue
            rows = changed.micro_rows
            while rows >= 1:
                smaller = changed.model_copy(update={"micro_rows": rows})
                if plan(smaller, gpu, num_gpus, prompt_tokens).fits:
                    return [*names, *([f"micro_rows={rows}"] if rows < config.micro_rows else [])]
                rows //= 2
    return None


def _is_a_change(config: GrpoConfig | SftConfig, setting: str, value: Any, num_gpus: int) -> bool:
    if (setting == "sharding" and num_gpus == 1) or (setting == "lora" and config.lora is not None):
        return False
    return _changed(config, setting, value) != config


def _changed(settings: Any, name: str, value: Any) -> Any:
    """Copy settings with another value of `name`, a path such as optimiser.offload."""
    first, _, rest = name.partition(".")
    return settings.model_copy(update={first: _changed(getattr(settings, first), rest, value) if rest else value})


def advice(config: GrpoConfig | SftConfig, needs: Plan, prompt_tokens: int) -> str:
    """Say in one line that it fits, or what to change."""
    if needs.fits:
        return f"fits: {needs.needed / 1e9:.1f} of {needs.usable / 1e9:.1f} GB."
    short = f"does not fit: {needs.needed / 1e9:.1f} GB needed, {needs.usable / 1e9:.1f} GB usable on {needs.gpu}."
    changes = changes_that_fit(config, needs.gpu, needs.num_gpus, prompt_tokens)
    if changes is None:
        return f"{short} No setting makes it fit: take a GPU with more memory, or more GPUs with sharding=fsdp2."
    return f"{short} Set " + " ".join(f"'{c}'" if " " in c else c for c in changes)


def as_dict(needs: Plan, words: str) -> JsonObject:
    """Convert a plan for programs."""
    derived = {"needed": needs.needed, "fits": needs.fits, "advice": words}
    return dataclasses.asdict(needs) | derived
