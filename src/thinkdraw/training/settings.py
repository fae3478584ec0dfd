"""The settings of every recipe that trains a policy."""

import math
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from thinkdraw.config import StrictModel
from thinkdraw.policies.lora import LoraSettings
from thinkdraw.runtime.inputs.noted import CHANGED_INPUTS, ChangedInputs

Beta = Annotated[float, Field(ge=0, lt=1)]


class OptimiserSettings(StrictModel):
    learning_rate: float = Field(default=1e-4, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    betas: tuple[Beta, Beta] = (0.9, 0.95)
    eps: float = Field(default=1e-8, gt=0)
    warmup_steps: int = Field(default=5, ge=0, description="Optimiser steps over which the rate rises from 0.")
    schedule: Literal["constant", "linear", "cosine"] = Field(
        default="constant", description="After the warm-up, over the run's progress."
    )
    final_frac: float = Field(
        default=0.1, ge=0, le=1, description="Where linear and cosine end, as a share of learning_rate."
    )
    max_grad_norm: float = Field(default=1.0, gt=0)
    offload: bool = Field(
        default=False,
        description="Keep fp32 weights, gradients and moments in the machine's memory, and step there: slower, and an "
        "accelerator holds hardly more than the weights in use.",
    )

    def rate(self, step: int, progress: float) -> float:
        """Learning rate of the optimiser step after `step` steps. progress: 0..1 of the run."""
        left = {"constant": 1.0, "linear": 1 - progress, "cosine": (1 + math.cos(math.pi * min(1.0, progress))) / 2}[
            self.schedule
        ]
        warm = min(1.0, (step + 1) / (self.warmup_steps + 1))
        return self.learning_rate * warm * (self.final_frac + (1 - self.final_frac) * left)


class TrainSettings(StrictModel):
    """Fields of every recipe that trains a policy."""

    can_shard: ClassVar[bool] = False
    chooses_best: ClassVar[bool] = False  # by a validation score; else the newest checkpoint is the result

    recipe: str
    out: Path = Field(description="The run folder.")
    policy: str = Field(
        default="lab", description="Checkpoint folder, run folder (its best checkpoint), model id, or `lab`."
    )
    seed: int = Field(default=0, ge=0)
    device: str = Field(default="auto", description="auto, cpu, cuda or mps.")
    dtype: Literal["fp32", "bf16"] = Field(
        default="fp32", description="Of the weights in use; the optimiser's copy is fp32."
    )
    precision: Literal["fp32", "bf16"] = Field(
        default="bf16", description="Of the forward pass; bf16 is torch's autocast."
    )
    lora: LoraSettings | None = Field(default=None, description="Train adapters instead of all weights.")
    gradient_checkpointing: bool = Field(
        default=False, description="Recompute layers in the backward pass to save memory."
    )
    optimiser: OptimiserSettings = OptimiserSettings()
    micro_rows: int = Field(
        default=64, ge=1, description="Sequences per forward pass; any value gives the same gradient."
    )
    max_steps: int = Field(default=100, ge=1, description="Optimiser steps.")
    max_seconds: float | None = Field(
        default=None, gt=0, description="Stop here if sooner; the learning rate then follows the clock."
    )
    save_every: int = Field(default=20, ge=1, description="Optimiser steps between checkpoints.")
    keep_checkpoints: int = Field(default=2, ge=1, description="The newest ones; the best one is kept besides.")
    resume: bool = Field(default=True, description="Continue the run that `out` holds.")
    changed_inputs: ChangedInputs = Field(default="refuse", description=CHANGED_INPUTS)
    log_every: int = Field(default=10, ge=1, description="Steps per printed line where there is no terminal.")
    num_threads: int | None = Field(default=None, ge=1, description="CPU threads; null follows OMP_NUM_THREADS.")
    num_processes: int | None = Field(
        default=None, ge=1, description="Refuse to start with another number; null: WORLD_SIZE."
    )
    sharding: Literal["none", "fsdp2"] = Field(
        default="none",
        description="fsdp2: trained weights, gradients and optimiser state are spread over the processes.",
    )
    patience_s: float = Field(
        default=600, gt=0, description="Seconds that a process waits for a silent one before it stops."
    )

    def too_many_processes(self, size: int) -> str | None:
        """Why `size` processes are too many, with the way out; None where they are not."""
        return None

    @model_validator(mode="after")
    def _recipe_can_shard(self) -> "TrainSettings":
        if self.sharding != "none" and not self.can_shard:
            raise ValueError(
                "sharding=fsdp2 is for recipes sft and grpo; this one trains whole weights: set it to none"
            )
        if self.sharding != "none" and self.optimiser.offload:
            raise ValueError("optimiser.offload=true is for whole weights: set sharding to none, or it to false")
        return self
