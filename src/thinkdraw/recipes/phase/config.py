"""Settings of `recipes/grpo.py`; a part of a phase has its own in its own file."""

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
TOKEN_MEANS = ("dapo", "bnpo", "cispo")  # variants whose loss is a mean over tokens
OWN_CLIP = 0.2  # of every variant but gspo and cispo


class GrpoConfig(TrainSettings):
    """Settings of GRPO; `TrainSettings` has those that all recipes share."""

    can_shard: ClassVar[bool] = True
    chooses_best: ClassVar[bool] = True
    recipe: Literal["grpo"] = Field(
        default="grpo", description="Names the recipe that this configuration is for; always `grpo`."
    )
    out: Path = Field(
        default=Path("runs/lab_grpo"),
        description="Folder of the run: configuration, metrics, checkpoints, rollouts. A stopped run goes on there.",
    )
    prompts: DataSettings = Field(
        default=DataSettings(),
        description="Training prompts: where they come from, how many, and which test sets are kept out.",
    )
    stages: list[MixSettings] = Field(
        default=[],
        description="Mixes of prompts that come first, each for some phases, before `prompts` for good (SRPO, "
        "arXiv 2504.14286).",
    )
    history: HistorySettings | None = Field(
        default=None,
        description="Skip prompts that every rollout of their last group solved (SRPO, arXiv 2504.14286); null "
        "skips none.",
    )
    rewrites: Literal["off", "pool"] = Field(
        default="off",
        description="pool: a group spans the prompt and rewrites of it that ask for the same, with one baseline "
        "(as PeRL, arXiv 2506.14907). off: one wording.",
    )
    validation: ValidationSettings = Field(
        default=ValidationSettings(),
        description="Fixed prompts and rewards that measure the run every few phases and choose its best checkpoint.",
    )
    reward: RewardSettings = Field(
        default=RewardSettings(), description="The reward that is optimised: its name and what it is made with."
    )
    sampling: Sampling = Field(
        default=Sampling.model_validate({}),
        description="How thoughts and pictures are sampled, in training and in validation.",
    )
    prompts_per_phase: int = Field(
        default=32,
        ge=1,
        description="Prompts that a phase samples, over all processes; it has group_size rollouts of each.",
    )
    group_size: int = Field(
        default=8,
        ge=2,
        description="Rollouts per prompt, whose rewards are compared with each other. Larger: a steadier "
        "baseline, and more sampling for a step.",
    )
    minibatches: int = Field(
        default=1,
        ge=1,
        description="Optimiser steps per pass over a phase, each on its own share of the groups. Above 1 the "
        "later steps are off-policy.",
    )
    passes: int = Field(
        default=1,
        ge=1,
        description="How often each phase's rollouts are learned from (GRPO's μ, arXiv 2402.03300). Above 1 "
        "ratios leave 1 and the clip acts.",
    )
    refill_rounds: int = Field(
        default=0,
        ge=0,
        description="Rounds in which groups of equal rewards are replaced by groups of new prompts (DAPO's "
        "dynamic sampling, arXiv 2503.14476); 0 keeps them.",
    )
    keep_extremes: int | None = Field(
        default=None,
        ge=1,
        description="Learn from this many best and as many worst rollouts of each group only (PeRL, arXiv "
        "2506.14907); null learns from all.",
    )
    variant: Literal["grpo", "dapo", "bnpo", "dr_grpo", "gspo", "cispo"] = Field(
        default="grpo",
        description="Loss, by arXiv number: grpo 2402.03300, dapo and its alias bnpo 2503.14476, dr_grpo "
        "2503.20783, gspo 2507.18071, cispo 2506.13585.",
    )
    advantage: Literal["group", "dr_grpo", "rloo", "reinforce++", "reinforce++_baseline"] | None = Field(
        default=None,
        description="group: (reward − mean)/std; dr_grpo: without std; rloo: minus the others' mean; "
        "reinforce++: over the batch. null: dr_grpo for that variant, else group.",
    )
    combine: Literal["sum", "gdpo", "weighted_sum"] = Field(
        default="sum",
        description="A reward of several parts: sum takes its own total; gdpo normalises each part in its group "
        "(arXiv 2601.05242); weighted_sum first scales parts by `ranges`.",
    )
    ranges: dict[str, tuple[float, float]] = Field(
        default={},
        description="Lowest and highest value of each part of the reward, {part: [low, high]}; "
        "combine=weighted_sum needs them.",
    )
    token_weights: TokenWeights | None = Field(
        default=None,
        description="Spread an advantage over tokens, by arXiv number: stage 2509.25027, critical 2509.22485, "
        "entropy_guided 2604.02355, guidance_contrast 2605.29198; null: evenly.",
    )
    clip_low: float | None = Field(
        default=None,
        gt=0,
        description="Lower clip of the ratio π/π_old: 1 − clip_low. Larger lets bad tokens shrink faster; null: "
        "3e-4 for gspo, else 0.2. cispo takes none.",
    )
    clip_high: float | None = Field(
        default=None,
        gt=0,
        description="Upper clip of the ratio π/π_old: 1 + clip_high. Larger lets unlikely good tokens grow "
        "faster (DAPO 0.28, arXiv 2503.14476); null: 4e-4 for gspo, else 0.2. Acts from a phase's second step on.",
    )
    cispo_max: float | None = Field(
        default=None,
        gt=0,
        description="Cap on the ratio π/π_old that weighs a token's gradient with variant=cispo (arXiv "
        "2506.13585); null: 5. No other variant takes it.",
    )
    guidance_in_loss: Literal["same", "conditional"] = Field(
        default="same",
        description="same scores tokens in the distribution they were sampled from, guidance included. conditional leaves "
        "guidance out, as T2I-R1's code does (arXiv 2505.00703); it needs old_log_probs=recomputed.",
    )
    reduction: Literal["segment", "token"] = Field(
        default="segment",
        description="segment: thoughts and pictures each have a mean of their own. token: one mean over the tokens of "
        "both (ReasonGen-R1, T2I-R1), for variants that average over tokens: dapo, bnpo, cispo.",
    )
    text_weight: float = Field(
        default=1.0,
        ge=0,
        description="Weight of the loss on thought tokens, which have a mean of their own; 0 learns from "
        "pictures alone.",
    )
    image_weight: float = Field(
        default=1.0,
        ge=0,
        description="Weight of the loss on image tokens, which have a mean of their own; 0 learns from thoughts alone.",
    )
    beta: float = Field(
        default=0.0,
        ge=0,
        description="Weight of the KL distance to the reference. Larger keeps the policy nearer to it; 0 needs "
        "no reference and no memory for one.",
    )
    kl: Literal["k1", "k2", "k3"] = Field(
        default="k3",
        description="Estimate of the KL distance: k2 and k3 are terms of the loss; k1 is taken off the reward, "
        "summed over a rollout's tokens.",
    )
    refresh_reference_every: int | None = Field(
        default=None,
        ge=1,
        description="Phases after which the policy becomes the new reference; null keeps the policy that the run "
        "began with.",
    )
    old_log_probs: Literal["sampled", "recomputed"] = Field(
        default="sampled",
        description="π_old of the ratio: `sampled` takes the sampler's own log-probs; `recomputed` scores again "
        "in training's shapes, up to one more forward pass.",
    )
    importance_cap: float | None = Field(
        default=None,
        ge=1,
        description="Weigh each token by min(π_old/π_behaviour, cap), for what sampler and trainer round differently, or for "
        "rollouts of an older policy. Needs old_log_probs=recomputed; null weighs none.",
    )
    entropy: EntropySettings = Field(
        default=EntropySettings(),
        description="Entropy term of the loss, with a coefficient for each modality (ReasonGen-R1, arXiv 2505.24875).",
    )
    judge_chunks: int = Field(
        default=1,
        ge=1,
        description="Parts in which a phase is sampled; each is judged while the next is sampled, unless both "
        "would use the same CPU. 1 judges after sampling.",
    )
    max_no_verdict_frac: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="Stop the run if the reward has no verdict (NaN) on more than this share of a phase's rollouts.",
    )
    log_rollouts_every: int = Field(
        default=10, ge=0, description="Phases between parquet files of rollouts that people can read; 0 writes none."
    )
    store: bool = Field(
        default=True,
        description="Keep all rollouts with their rewards in the folder `store` of the run, to look at or to "
        "learn from again.",
    )
    log_groups: int = Field(default=2, ge=1, description="Groups in each file that log_rollouts_every writes.")

    @property
    def refreshes_reference(self) -> bool:
        """Whether the reference follows the policy, or else stays the starting policy."""
        return self.beta > 0 and self.refresh_reference_every is not None

    def too_many_processes(self, size: int) -> str | None:
        if self.prompts_per_phase // self.minibatches >= size:
            return None
        return (
            f"prompts_per_phase={self.prompts_per_phase} in {self.minibatches} minibatches over {size} processes leaves "
            "a process without a group. Raise prompts_per_phase."
        )

    @model_validator(mode="before")
    @classmethod
    def _own_clips_are_null(cls, values: object) -> object:
        """Treat a clip of 0.2 as null where it is the variant's own.

        Older versions wrote the default into config.yaml: with this a run of theirs is recognised and goes on.
        """
        if isinstance(values, dict) and values.get("variant", "grpo") not in ("gspo", "cispo"):
            return {k: v for k, v in values.items() if k not in ("clip_low", "clip_high") or v != OWN_CLIP}
        return values

    @model_validator(mode="after")
    def _settings_fit_each_other(self) -> "GrpoConfig":
        if self.variant == "cispo" and (self.clip_low is not None or self.clip_high is not None):
            raise ValueError("variant=cispo clips no ratio: leave out clip_low and clip_high, and set cispo_max")
        if self.variant != "cispo" and self.cispo_max is not None:
            raise ValueError(f"cispo_max is for variant=cispo alone, not for {self.variant}: leave it out")
        if self.variant == "gspo" and max(self.clip_low or 0, self.clip_high or 0) > MAX_GSPO_CLIP:
            raise ValueError(
                f"clip_low={self.clip_low}, clip_high={self.clip_high} with variant=gspo: its ratio is a mean over a segment "
                f"and moves little, so a clip above {MAX_GSPO_CLIP} never acts. Leave both out for 3e-4 and 4e-4"
            )
        if self.token_weights and self.variant == "gspo":
            raise ValueError(
                "token_weights cannot be used with variant=gspo, which has one advantage per segment: choose another variant"
            )
        if self.refreshes_reference and self.lora:
            raise ValueError(
                "refresh_reference_every cannot be used with lora: the reference is the policy without its adapters, and "
                "never changes. Set refresh_reference_every=null, or train all weights"
            )
        if self.reduction == "token" and self.variant not in TOKEN_MEANS:
            raise ValueError(
                f"reduction=token takes one mean over all tokens, and variant={self.variant} averages otherwise. Choose "
                f"variant={TOKEN_MEANS[0]}, or leave reduction out"
            )
        if self.guidance_in_loss == "conditional":
            self._check_conditional()
        if self.importance_cap is not None and self.old_log_probs == "sampled":
            raise ValueError(
                "importance_cap weighs tokens by π_old/π_behaviour, which is 1 where π_old is the sampler's: set "
                "old_log_probs=recomputed, or leave importance_cap out"
            )
        if self.importance_cap is not None and self.variant == "gspo":
            raise ValueError(
                "importance_cap weighs tokens, and variant=gspo has one ratio per segment: choose another variant"
            )
        if self.combine != "sum" and self.advantage is not None:
            raise ValueError(f"combine={self.combine} computes the advantages itself: leave out advantage")
        if self.combine != "sum" and self.beta > 0 and self.kl == "k1":
            raise ValueError(
                f"kl=k1 lowers the reward's sum, and combine={self.combine} reads the parts instead: use k2 or k3"
            )
        return self

    def _check_conditional(self) -> None:
        """Raise ValueError where `guidance_in_loss=conditional` cannot be followed."""
        if self.sampling.guidance_scale == 1:
            raise ValueError(
                "guidance_in_loss=conditional leaves guidance out of the loss, and sampling.guidance_scale is 1: there is none. "
                "Leave it out"
            )
        if self.old_log_probs == "sampled":
            raise ValueError(
                "guidance_in_loss=conditional needs old_log_probs=recomputed: the sampler's log-probs are with guidance"
            )
        if self.token_weights == "guidance_contrast":
            raise ValueError(
                "token_weights=guidance_contrast reads guidance, which guidance_in_loss=conditional leaves out"
            )
