"""The settings of `recipes/grpo.py`; those of one part of a phase stand in the file of that part, and are named here."""

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from thinkdraw.recipes.phase.entropy import EntropySettings
from thinkdraw.recipes.phase.monitor import ValidationSettings
from thinkdraw.recipes.phase.prompt_order import HistorySettings, MixSettings
from thinkdraw.recipes.phase.token_credit import TokenWeights
from thinkdraw.rewards.opening import RewardSettings
from thinkdraw.training.data import DataSettings
from thinkdraw.training.settings import TrainSettings
from thinkdraw.types import Sampling

MAX_GSPO_CLIP = 0.01  # above it a clip never acts
OWN_CLIP = 0.2  # of every variant but gspo and cispo


class GrpoConfig(TrainSettings):
    """A GRPO run. Policy, precision, steps and checkpoints are among the fields of every recipe, `TrainSettings`."""

    can_shard: ClassVar[bool] = True
    chooses_best: ClassVar[bool] = True
    recipe: Literal["grpo"] = "grpo"
    out: Path = Field(default=Path("runs/lab_grpo"), description="The run folder.")
    prompts: DataSettings = DataSettings()
    stages: list[MixSettings] = Field(default=[], description="Other prompts first, each mix for some phases (SRPO).")
    history: HistorySettings | None = Field(default=None, description="Skip prompts that are solved (SRPO).")
    rewrites: Literal["off", "pool"] = Field(
        default="off", description="pool: a group spans rewrites of its prompt that ask for the same (PeRL)."
    )
    validation: ValidationSettings = ValidationSettings()
    reward: RewardSettings = RewardSettings()
    sampling: Sampling = Sampling.model_validate({})
    prompts_per_phase: int = Field(default=32, ge=1, description="Over all processes.")
    group_size: int = Field(default=8, ge=2, description="Rollouts per prompt, which are compared with each other.")
    minibatches: int = Field(
        default=1, ge=1, description="Optimiser steps per pass over a phase, each on a part of its groups."
    )
    passes: int = Field(default=1, ge=1, description="Passes over a phase (GRPO's μ).")
    refill_rounds: int = Field(
        default=0, ge=0, description="Times that groups without spread are replaced by new prompts' groups."
    )
    keep_extremes: int | None = Field(
        default=None, ge=1, description="Learn from this many best and as many worst rollouts of a group only (PeRL)."
    )
    variant: Literal["grpo", "dapo", "bnpo", "dr_grpo", "gspo", "cispo"] = "grpo"
    advantage: Literal["group", "dr_grpo", "rloo", "reinforce++", "reinforce++_baseline"] | None = Field(
        default=None, description="Rewards to advantages; null: the variant's own, dr_grpo's or the group's."
    )
    combine: Literal["sum", "gdpo", "weighted_sum"] = Field(
        default="sum",
        description="A reward of several parts: its own sum; gdpo, each part normalised in the group; or parts scaled by ranges.",
    )
    ranges: dict[str, tuple[float, float]] = Field(default={}, description="Of each part, for weighted_sum.")
    token_weights: TokenWeights | None = Field(
        default=None, description="Spread a rollout's advantage over its tokens."
    )
    clip_low: float | None = Field(
        default=None, gt=0, description="How far a ratio may fall; null: the variant's own, 3e-4 for gspo, else 0.2."
    )
    clip_high: float | None = Field(
        default=None, gt=0, description="How far a ratio may rise; null: the variant's own, 4e-4 for gspo, else 0.2."
    )
    cispo_max: float | None = Field(
        default=None, gt=0, description="The highest weight that cispo gives a token's gradient; null: 5."
    )
    text_weight: float = Field(default=1.0, ge=0)
    image_weight: float = Field(default=1.0, ge=0)
    beta: float = Field(default=0.0, ge=0, description="Weight of the KL to the reference; 0 needs no reference.")
    kl: Literal["k1", "k2", "k3"] = Field(
        default="k3", description="k2, k3: in the loss; k1: inside the reward, summed over a rollout's tokens."
    )
    refresh_reference_every: int | None = Field(
        default=None, ge=1, description="Phases after which the policy becomes the reference; null: never."
    )
    old_log_probs: Literal["sampled", "recomputed"] = Field(
        default="sampled", description="recomputed: in training geometry, one more forward."
    )
    entropy: EntropySettings = EntropySettings()
    judge_chunks: int = Field(
        default=1,
        ge=1,
        description="Parts in which a phase is drawn, each judged while the next is drawn; before it where both compute on a CPU.",
    )
    max_no_verdict_frac: float = Field(
        default=0.1, ge=0, le=1, description="Stop if more rewards of a phase than this are NaN."
    )
    log_rollouts_every: int = Field(
        default=10, ge=0, description="Phases between parquet files of rollouts; 0 is never."
    )
    store: bool = Field(default=True, description="Keep the rollouts with their rewards in the run's `store`.")
    log_groups: int = Field(default=2, ge=1, description="Groups per file.")

    @property
    def refreshes_reference(self) -> bool:
        """Whether the reference follows the policy, and is not the starting policy for good."""
        return self.beta > 0 and self.refresh_reference_every is not None

    def too_many_processes(self, size: int) -> str | None:
        if self.prompts_per_phase // self.minibatches >= size:
            return None
        return (
            f"prompts_per_phase={self.prompts_per_phase} in {self.minibatches} minibatches over {size} processes leaves "
            "one without a group. Raise prompts_per_phase."
        )

    @model_validator(mode="before")
    @classmethod
    def _own_clips_are_null(cls, values: object) -> object:
        """Take a clip of 0.2 out where it is the variant's own: so an older run, whose file says it, is the same run."""
        if isinstance(values, dict) and values.get("variant", "grpo") not in ("gspo", "cispo"):
            return {k: v for k, v in values.items() if k not in ("clip_low", "clip_high") or v != OWN_CLIP}
        return values

    @model_validator(mode="after")
    def _settings_fit_each_other(self) -> "GrpoConfig":
        if self.variant == "cispo" and (self.clip_low is not None or self.clip_high is not None):
            raise ValueError("variant=cispo clips no ratio: leave clip_low and clip_high out, and set cispo_max")
        if self.variant != "cispo" and self.cispo_max is not None:
            raise ValueError(f"cispo_max is read by variant=cispo alone, not by {self.variant}: leave it out")
        if self.variant == "gspo" and max(self.clip_low or 0, self.clip_high or 0) > MAX_GSPO_CLIP:
            raise ValueError(
                f"clip_low={self.clip_low}, clip_high={self.clip_high} with variant=gspo: its ratio is a mean over a segment, "
                f"which moves so little that a clip above {MAX_GSPO_CLIP} never acts. Leave both out for 3e-4 and 4e-4"
            )
        if self.token_weights and self.variant == "gspo":
            raise ValueError(
                "token_weights with variant=gspo, which has one advantage per segment: choose another variant"
            )
        if self.refreshes_reference and self.lora:
            raise ValueError(
                "refresh_reference_every with lora: the reference is the policy without its adapters, which does not "
                "change. Set refresh_reference_every=null, or train all weights"
            )
        if self.combine != "sum" and self.advantage is not None:
            raise ValueError(f"combine={self.combine} makes the advantages itself: leave advantage out")
        if self.combine != "sum" and self.beta > 0 and self.kl == "k1":
            raise ValueError(
                f"kl=k1 is part of the reward, which combine={self.combine} does not look at: use k2 or k3"
            )
        return self
