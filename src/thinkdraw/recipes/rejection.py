"""Rejection fine-tuning: supervised learning of the thoughts and pictures that a judge found good enough.

    thinkdraw train lab_rejection store=runs/store

Rollouts above a threshold, or the best of each group, become the targets of the policy that sampled them or of an earlier
one: OpenVLThinker fine-tunes the *original* model on what the reinforced one wrote (arXiv 2503.17352).
"""

import time
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from thinkdraw.errors import UserError
from thinkdraw.objectives import SegmentCounts, count_segments, kept_rows, masked_modality_mean, segment_loss
from thinkdraw.training.data import shuffled
from thinkdraw.training.display import Display
from thinkdraw.training.folder import RunFolder
from thinkdraw.training.judged_store import load_judged
from thinkdraw.training.ledger import Ledger
from thinkdraw.training.training import OptimiserSettings, Team, Trainer, TrainSettings, open_policy
from thinkdraw.types import Policy, Rollouts


class RejectionConfig(TrainSettings):
    recipe: Literal["rejection"] = "rejection"
    out: Path = Field(default=Path("runs/lab_rejection"), description="The run folder.")
    store: Path = Field(default=Path("runs/store"), description="Judged rollouts.")
    judge: str = Field(default="lab-detector", description="Whose scores of the store decide.")
    threshold: float | None = Field(default=None, description="Keep rollouts with a higher score.")
    best_of_group: bool = Field(default=True, description="Keep the best of each group only, if above the threshold.")
    batch_rows: int = Field(default=64, ge=1, description="Sequences per optimiser step, over all processes.")
    text_weight: float = Field(default=0.35, ge=0)
    image_weight: float = Field(default=1.0, ge=0)
    reduction: Literal["segment", "token"] = "segment"
    optimiser: OptimiserSettings = OptimiserSettings(learning_rate=1e-4, warmup_steps=5, schedule="cosine")

    @model_validator(mode="after")
    def _something_is_rejected(self) -> "RejectionConfig":
        if self.threshold is None and not self.best_of_group:
            raise ValueError("nothing would be rejected: set threshold=…, or best_of_group=true")
        return self


def run(config: RejectionConfig) -> Path:
    """Train, and return the run folder; its newest checkpoint is the result. Raises UserError."""
    team = Team(config)
    folder = RunFolder(config, team)
    policy = open_policy(config, team)
    trainer = Trainer(policy, config.optimiser, team)
    state = folder.open()
    judged = load_judged(config.store, config.judge, policy)
    kept = kept_rows(judged.scores, judged.group_size, threshold=config.threshold, best_of=config.best_of_group)
    if len(kept) < config.batch_rows:
        raise UserError(
            f"{len(kept)} of {len(judged.scores)} rollouts are kept, fewer than batch_rows={config.batch_rows}. Lower "
            "the threshold or batch_rows, or sample more."
        )
    folder.started(policy.revision, judged.rollouts.prompts, judged.rollouts.sampling)
    step, ledger = state["step"] if state else 0, Ledger.of(state)
    if not state:
        ledger.add(**judged.cost())
    if state:
        trainer.load_state_dict(state)

    saved = step
    with Display("rejection", config.max_steps, config.log_every, team.is_main) as display:
        while folder.progress(step) < 1:
            began = time.monotonic()
            places = range(step * config.batch_rows, (step + 1) * config.batch_rows)
            rows = kept[torch.tensor([shuffled(i, len(kept), config.seed) for i in places])]
            whole = judged.rollouts.select(rows)
            counts = count_segments(whole.mask, whole.is_image)
            mine = rows[team.rank :: team.size]
            sums = team.add(trainer.gradients(partial(accumulate, policy, judged.rollouts, mine, counts), config))
            grad_norm, rate = trainer.step(step, folder.progress(step))
            step += 1
            row = {"step": step, **sums, "grad_norm": grad_norm, "learning_rate": rate}
            ledger.add(sequences_trained=counts.sequences, tokens_trained=counts.text + counts.image)
            ledger.add(seconds_learning=time.monotonic() - began)
            row |= {"kept_frac": len(kept) / len(judged.scores), **ledger.row(), "seconds": folder.seconds()}
            if team.is_main:
                folder.log.append(row)
            display.show(step, row, ("loss", "text_nats", "image_nats", "grad_norm"), folder.progress(step))
            if step - saved >= config.save_every:
                folder.save(step, policy, trainer, ledger=ledger.row())
                saved = step
        if saved != step:
            folder.save(step, policy, trainer, ledger=ledger.row())
    return folder.path


def accumulate(
    policy: Policy, rollouts: Rollouts, rows: Tensor, counts: SegmentCounts, config: RejectionConfig
) -> dict[str, float]:
    """Add the gradients of this process's rows, `micro_rows` at a time; over processes the sums are means."""
    sums: dict[str, Any] = {"loss": 0.0, "text_nats": 0.0, "image_nats": 0.0}
    lengths = (rollouts.segment[rows] >= 0).sum(1)
    for chosen in rows[torch.argsort(lengths, stable=True)].split(config.micro_rows):
        micro = rollouts.select(chosen).to(policy.device)
        nll = -policy.log_probs(micro).log_probs
        weights = (config.text_weight, config.image_weight, config.reduction)
        loss = segment_loss(nll, micro.mask, micro.is_image, *weights, counts)
        loss.backward()
        means = masked_modality_mean(nll.detach(), micro.mask, micro.is_image, counts)
        for name, value in zip(sums, (loss.detach(), means.text, means.image), strict=True):
            sums[name] += value
    return {name: float(value) for name, value in sums.items()}
