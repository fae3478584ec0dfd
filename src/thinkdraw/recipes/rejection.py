"""Rejection fine-tuning: SFT on the rollouts that a judge scored best.

    thinkdraw train lab_rejection store=runs/store

Rollouts above a threshold, or the best of each group, become SFT targets: for the policy that sampled them, or for an earlier
one. OpenVLThinker fine-tunes the *original* model on what the reinforced one wrote (arXiv 2503.17352).
"""

from functools import partial
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field, model_validator

from thinkdraw.errors import UserError
from thinkdraw.objectives import SegmentCounts, accepted_rows, masked_modality_mean, segment_loss
from thinkdraw.training.batch import Batch
from thinkdraw.training.data import shuffled_index
from thinkdraw.training.judged_store import load_judged_rollouts, sampling_cost, store_input
from thinkdraw.training.run import Loss, Run
from thinkdraw.training.settings import OptimiserSettings, TrainSettings
from thinkdraw.types import Policy


class RejectionConfig(TrainSettings):
    """Settings of rejection; `TrainSettings` has those that all recipes share."""

    recipe: Literal["rejection"] = Field(
        default="rejection", description="Names the recipe that this configuration is for; always `rejection`."
    )
    out: Path = Field(
        default=Path("runs/lab_rejection"),
        description="Folder of the run: configuration, metrics and checkpoints. A stopped run goes on there.",
    )
    store: Path = Field(
        default=Path("runs/store"), description="Store of judged rollouts, the good ones of which are imitated."
    )
    judge: str = Field(
        default="lab-detector", description="Judge whose scores in the store decide which rollouts are good."
    )
    threshold: float | None = Field(
        default=None,
        description="Keep only rollouts whose score is above this; null sets no limit, and then best_of_group "
        "must be true.",
    )
    best_of_group: bool = Field(
        default=True,
        description="Keep only the best rollout of each group, and only if it passes the threshold; false keeps "
        "all that pass it.",
    )
    batch_rows: int = Field(
        default=64, ge=1, description="Sequences that each optimiser step learns from, over all processes."
    )
    text_weight: float = Field(
        default=0.35, ge=0, description="Weight of the loss on thought tokens; 0 learns pictures alone."
    )
    image_weight: float = Field(
        default=1.0, ge=0, description="Weight of the loss on image tokens; 0 learns thoughts alone."
    )
    reduction: Literal["segment", "token"] = Field(
        default="segment",
        description="segment: thoughts and pictures each have a mean of their own. token: one mean over the "
        "tokens of both.",
    )
    optimiser: OptimiserSettings = Field(
        default=OptimiserSettings(learning_rate=1e-4, warmup_steps=5, schedule="cosine"),
        description="AdamW, its learning rate and its schedule.",
    )

    @model_validator(mode="after")
    def _something_is_rejected(self) -> "RejectionConfig":
        if self.threshold is None and not self.best_of_group:
            raise ValueError("nothing would be rejected: set threshold=…, or best_of_group=true")
        return self


def run(config: RejectionConfig) -> Path:
    """Train, and return the run folder. Raises UserError.

    The newest checkpoint is the result.
    """
    with Run.open(config) as run:
        judged = load_judged_rollouts(config.store, config.judge, run.policy)
        kept = accepted_rows(
            judged.rewards, judged.group_size, threshold=config.threshold, best_of=config.best_of_group
        )
        if len(kept) < config.batch_rows:
            raise UserError(
                f"only {len(kept)} of {len(judged)} rollouts are kept, fewer than batch_rows={config.batch_rows}. Lower "
                "the threshold or batch_rows, or sample more."
            )
        run.note("store", store_input(config.store, config.judge, judged))
        if run.is_new:
            run.ledger.add(**sampling_cost(judged))
        run.begin(judged.rollouts.prompts, judged.rollouts.sampling)
        while run.goes_on:
            with run.clock("seconds_learning"):
                # Seed and step alone decide the rows. All processes know them, so that the counts of the whole step, by
                # which every share of the loss is divided, need no all-reduce.
                indices = range(run.step * config.batch_rows, (run.step + 1) * config.batch_rows)
                rows = kept[torch.tensor([shuffled_index(i, len(kept), config.seed) for i in indices])]
                counts = judged.select(rows).counts()
                mine = judged.select(rows[run.world.rank :: run.world.size])
                update = run.update(partial(rejection_loss, run.policy, counts=counts, config=config), mine)
            run.ledger.add(sequences_trained=counts.sequences, tokens_trained=counts.text + counts.image)
            row = update.row() | {"kept_frac": len(kept) / len(judged)}
            run.log(row, ("loss", "text_nats", "image_nats", "grad_norm"))
            run.save_when_due()
    return run.path


def rejection_loss(policy: Policy, micro: Batch, *, counts: SegmentCounts, config: "RejectionConfig") -> Loss:
    """Compute a micro-batch's share of the step's cross-entropy, as in SFT.

    counts: trained tokens of the whole step, by which every micro-batch divides.
    """
    rollouts = micro.rollouts.to(policy.device)
    nll = -policy.log_probs(rollouts).log_probs
    weights = (config.text_weight, config.image_weight, config.reduction)
    loss = segment_loss(nll, rollouts.mask, rollouts.is_image, *weights, counts)
    means = masked_modality_mean(nll.detach(), rollouts.mask, rollouts.is_image, counts)
    return Loss(loss, {"loss": loss, "text_nats": means.text, "image_nats": means.image})
