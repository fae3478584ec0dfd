"""Settings of every recipe that trains a model."""

import math
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from thinkdraw.config import StrictModel
from thinkdraw.policies.lora import LoraSettings
from thinkdraw.runtime.inputs.run_inputs import CHANGED_INPUTS, ChangedInputs
from thinkdraw.runtime.json_types import JsonObject

TRACKERS = ("trackio", "wandb", "tensorboard", "mlflow")
Beta = Annotated[float, Field(ge=0, lt=1)]


class OptimiserSettings(StrictModel):
    learning_rate: float = Field(
        default=1e-4, gt=0, description="Highest learning rate of AdamW, reached at the end of the warm-up."
    )
    weight_decay: float = Field(
        default=0.0, ge=0, description="Decoupled weight decay of AdamW (arXiv 1711.05101); 0 is none."
    )
    betas: tuple[Beta, Beta] = Field(
        default=(0.9, 0.95),
        description="Decay rates of AdamW's running means of the gradient and of its square; nearer to 1 "
        "averages over more steps.",
    )
    eps: float = Field(
        default=1e-8,
        gt=0,
        description="Added to the denominator of AdamW's step, so that a tiny gradient makes no huge step.",
    )
    warmup_steps: int = Field(
        default=5, ge=0, description="Optimiser steps over which the learning rate rises from 0 to its highest."
    )
    schedule: Literal["constant", "linear", "cosine"] = Field(
        default="constant",
        description="Course of the learning rate after the warm-up, over the run's progress: constant, or "
        "falling in a line or a cosine.",
    )
    final_frac: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="Learning rate at the end of a linear or cosine schedule, as a share of learning_rate.",
    )
    max_grad_norm: float = Field(
        default=1.0, gt=0, description="Largest norm of a step's gradient; one that is longer is scaled down to it."
    )
    offload: bool = Field(
        default=False,
        description="Keep fp32 weights, gradients and moments in the machine's memory and step there. Slower, "
        "but an accelerator then holds little beside the weights in use.",
    )

    def rate(self, step: int, progress: float) -> float:
        """Compute the learning rate of the step after `step` steps. progress: 0..1."""
        left = {"constant": 1.0, "linear": 1 - progress, "cosine": (1 + math.cos(math.pi * min(1.0, progress))) / 2}[
            self.schedule
        ]
        warm = min(1.0, (step + 1) / (self.warmup_steps + 1))
        return self.learning_rate * warm * (self.final_frac + (1 - self.final_frac) * left)


class TrainSettings(StrictModel):
    """Settings of every recipe that trains a model."""

    can_shard: ClassVar[bool] = False
    chooses_best: ClassVar[bool] = False  # by a validation score; else the newest checkpoint is the result

    recipe: str = Field(description="Names the recipe that this configuration is for, as in `thinkdraw list recipes`.")
    out: Path = Field(
        description="Folder of the run: configuration, metrics and checkpoints. A stopped run goes on there."
    )
    policy: str = Field(
        default="lab",
        description="The policy that training starts from: checkpoint folder, run folder (its best checkpoint), "
        "model id, or `lab`.",
    )
    seed: int = Field(
        default=0,
        ge=0,
        description="Seed of all random choices of the run: order, sampling, first weights of adapters.",
    )
    device: str = Field(
        default="auto",
        description="Where the network runs: auto, cpu, cuda or mps. auto takes an accelerator where there is one.",
    )
    dtype: Literal["fp32", "bf16"] = Field(
        default="fp32",
        description="Type of the weights in memory; bf16 needs half of fp32's. The optimiser's copy is fp32 in "
        "any case.",
    )
    precision: Literal["fp32", "bf16"] = Field(
        default="bf16",
        description="Type of the forward pass: bf16 is torch's autocast, fp32 is slower and rounds less.",
    )
    lora: LoraSettings | None = Field(
        default=None,
        description="Train low-rank adapters of the language model in place of all weights (LoRA, arXiv "
        "2106.09685); null trains all weights.",
    )
    gradient_checkpointing: bool = Field(
        default=False,
        description="Compute each layer a second time in the backward pass: much less memory, and one more "
        "forward pass of time.",
    )
    optimiser: OptimiserSettings = Field(
        default=OptimiserSettings(), description="AdamW, its learning rate and its schedule."
    )
    micro_rows: int = Field(
        default=64,
        ge=1,
        description="Sequences per forward and backward pass. Fewer need less memory; any number gives the same "
        "gradient.",
    )
    max_steps: int = Field(default=100, ge=1, description="Optimiser steps after which the run ends.")
    max_seconds: float | None = Field(
        default=None,
        gt=0,
        description="Seconds of training after which the run ends, if max_steps is not reached before; the "
        "learning rate then follows the clock. null: no limit.",
    )
    save_every: int = Field(
        default=20,
        ge=1,
        description="Optimiser steps between checkpoints; it is also the most that a killed run loses.",
    )
    keep_checkpoints: int = Field(
        default=2, ge=1, description="How many of the newest checkpoints stay on disk; the best one stays besides."
    )
    resume: bool = Field(
        default=True, description="Go on with a run that `out` holds already; false refuses such a folder."
    )
    changed_inputs: ChangedInputs = Field(default="refuse", description=CHANGED_INPUTS)
    log_every: int = Field(
        default=10,
        ge=1,
        description="Steps per printed line where the output is no terminal; a terminal shows a progress bar.",
    )
    num_threads: int | None = Field(
        default=None, ge=1, description="CPU threads that torch uses; null follows OMP_NUM_THREADS."
    )
    num_processes: int | None = Field(
        default=None,
        ge=1,
        description="Number of processes that the run must have, or it refuses to start; null takes what "
        "WORLD_SIZE says.",
    )
    sharding: Literal["none", "fsdp2"] = Field(
        default="none",
        description="fsdp2 spreads trained weights, gradients and optimiser state over the processes (recipes "
        "sft and grpo); none keeps all of them in each.",
    )
    patience_s: float = Field(
        default=600, gt=0, description="Seconds that a process waits for a silent one before it stops with an error."
    )
    log_with: list[str] = Field(
        default=[],
        description="Trackers that mirror metrics.jsonl and logged pictures: trackio, wandb, tensorboard, mlflow, or "
        "an accelerate GeneralTracker of your own as pkg.mod:Class.",
    )
    tracker_project: str = Field(
        default="thinkdraw", description="Name of the project (or experiment) in the trackers of log_with."
    )
    tracker_settings: dict[str, JsonObject] = Field(
        default={},
        description="Arguments with which a tracker starts, by its name in log_with: {wandb: {entity: my-team}}. Keys "
        "of accounts belong into the tracker's own environment variables.",
    )
    callbacks: list[str] = Field(
        default=[],
        description="Classes of your own that are told of each step, checkpoint and the end, as pkg.mod:Class; an "
        "error in one ends the run.",
    )

    def too_many_processes(self, size: int) -> str | None:
        """Say why `size` processes are too many, and the way out; None if they are not."""
        return None

    @field_validator("log_with", "callbacks", mode="before")
    @classmethod
    def _a_name_is_a_list_of_one(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _observers_have_names(self) -> "TrainSettings":
        for name in self.log_with:
            if name not in TRACKERS and ":" not in name:
                raise ValueError(
                    f"log_with={name}: known trackers are {', '.join(TRACKERS)}; a GeneralTracker of your own works as "
                    "my_pkg.mine:MyTracker"
                )
        if unread := [name for name in self.tracker_settings if name not in self.log_with]:
            raise ValueError(f"tracker_settings.{unread[0]} is for a tracker that log_with does not name: add it there")
        if not self.log_with and self.tracker_project != "thinkdraw":
            raise ValueError("tracker_project is for the trackers of log_with, and there are none: name one there")
        if wrong := [name for name in self.callbacks if ":" not in name]:
            raise ValueError(
                f"callbacks={wrong[0]}: a callback is a class of your own: name it as my_pkg.mine:MyCallback"
            )
        return self

    @model_validator(mode="after")
    def _recipe_can_shard(self) -> "TrainSettings":
        if self.sharding != "none" and not self.can_shard:
            raise ValueError(f"sharding=fsdp2 is for recipes sft and grpo, not for {self.recipe}: set sharding=none")
        if self.sharding != "none" and self.optimiser.offload:
            raise ValueError(
                "optimiser.offload=true cannot be used with sharding=fsdp2: set sharding=none, or optimiser.offload=false"
            )
        return self
