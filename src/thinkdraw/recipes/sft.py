"""Supervised fine-tuning: the policy imitates prompt → thought → picture, text and image tokens weighted apart.

    thinkdraw train lab_sft

A tenth of the rows has prompt and thought blanked, exactly as guidance blanks them: the unconditional branch.
ReasonGen-R1 (arXiv 2505.24875), with separate means for the two modalities (`objectives/sft.py`).
"""

import dataclasses
import math
import time
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, model_validator

from thinkdraw.errors import UserError
from thinkdraw.objectives import SegmentCounts, count_segments, masked_modality_mean, segment_loss
from thinkdraw.training.data import DataSettings, Examples, check_prompts, load_examples
from thinkdraw.training.display import Display
from thinkdraw.training.folder import RunFolder
from thinkdraw.training.ledger import Ledger
from thinkdraw.training.training import OptimiserSettings, Team, Trainer, TrainSettings, open_policy
from thinkdraw.types import Policy, Rollouts, Sampling, ThoughtFormat


class SftConfig(TrainSettings):
    can_shard: ClassVar[bool] = True
    recipe: Literal["sft"] = "sft"
    out: Path = Field(default=Path("runs/lab_sft"), description="The run folder.")
    data: DataSettings = DataSettings()
    batch_rows: int = Field(default=64, ge=1, description="Sequences per optimiser step, over all processes.")
    bucket_batches: int = Field(
        default=4, ge=1, description="Rows are sorted by length within this many batches; 1 mixes lengths."
    )
    thought: ThoughtFormat = Field(
        default="inline", description="Where the thought stands; `off` trains pictures only."
    )
    max_thought_tokens: int = Field(
        default=96, ge=1, description="A longer thought is cut; a corpus says where, or leaves it out."
    )
    text_weight: float = Field(default=0.35, ge=0)
    image_weight: float = Field(default=1.0, ge=0)
    reduction: Literal["segment", "token"] = Field(
        default="segment", description="segment: a mean per modality; token: one over both."
    )
    drop_frac: float = Field(default=0.1, ge=0, lt=1, description="Rows with prompt and thought blanked, for guidance.")
    optimiser: OptimiserSettings = OptimiserSettings(
        learning_rate=3e-4, warmup_steps=20, schedule="cosine", weight_decay=0.01
    )

    @model_validator(mode="after")
    def _passes_are_alike(self) -> "SftConfig":
        if self.sharding != "none" and self.thought == "rewrite" and self.drop_frac > 0:
            raise ValueError(
                "sharding=fsdp2 with thought=rewrite and drop_frac: processes would make different passes, "
                "since rows that are dropped have no thought to train. Set drop_frac=0, or sharding=none"
            )
        return self


def run(config: SftConfig) -> Path:
    """Train, and return the run folder; its newest checkpoint is the result. Raises UserError."""
    team = Team(config)
    folder = RunFolder(config, team)
    policy = open_policy(config, team)
    base, trainer = policy.revision, Trainer(policy, config.optimiser, team)
    state = folder.open()
    sampling = Sampling.model_validate({"thought": config.thought, "max_thought_tokens": config.max_thought_tokens})
    cache = config.out / "data" / "image_tokens.safetensors"
    examples = load_examples(config.data, policy, config.max_thought_tokens, cache, team.is_main)
    check_prompts(policy, examples.prompts, sampling)
    folder.started(base, examples.prompts, sampling)
    if config.batch_rows < team.size:
        raise UserError(
            f"batch_rows={config.batch_rows} over {team.size} processes leaves one without a row. Raise batch_rows."
        )
    if len(examples) < config.batch_rows:
        raise UserError(
            f"{len(examples)} examples are fewer than batch_rows={config.batch_rows}. Lower it, or give more."
        )
    step, ledger = state["step"] if state else 0, Ledger.of(state)
    if state:
        trainer.load_state_dict(state)

    saved = step
    with Display("sft", config.max_steps, config.log_every, team.is_main) as display:
        while folder.progress(step) < 1:
            began = time.monotonic()
            batch = step_batch(policy, examples, config, sampling, step, team)
            counts = global_counts(batch, team)
            sums = trainer.gradients(
                partial(accumulate, policy, batch, counts), config, partial(num_passes, batch), sampling
            )
            grad_norm, rate = trainer.step(step, folder.progress(step))
            step += 1

            sums = team.add(sums)
            row = {"step": step, **sums, "grad_norm": grad_norm, "learning_rate": rate}
            took, tokens = time.monotonic() - began, counts.text + counts.image
            ledger.add(sequences_trained=counts.sequences, tokens_trained=tokens, seconds_learning=took)
            row |= {"tokens_per_s": tokens / took, **ledger.row(), "seconds": folder.seconds()}
            if team.is_main:
                folder.log.append(row)
            display.show(
                step, row, ("loss", "text_nats", "image_nats", "grad_norm", "tokens_per_s"), folder.progress(step)
            )
            if grad_norm == 0:
                display.warn(
                    "gradient", "the gradient norm is 0: nothing is learned. Are both weights 0, or all weights frozen?"
                )
            if step % config.save_every == 0:
                folder.save(step, policy, trainer, ledger=ledger.row())
                saved = step
        if saved != step:
            folder.save(step, policy, trainer, ledger=ledger.row())
        folder.finish()
    return folder.path


def step_batch(
    policy: Policy, examples: Examples, config: SftConfig, sampling: Sampling, step: int, team: Team
) -> Rollouts:
    """This process's rows of the step's batch; which rows and which are dropped follows from seed and step alone."""
    epoch, index = divmod(step, len(examples) // config.batch_rows)
    rows = examples.batches(config.batch_rows, config.bucket_batches, config.seed, epoch)[index]
    drop = np.random.default_rng([config.seed, 1, step]).random(len(rows)) < config.drop_frac
    mine = slice(team.rank, None, team.size)
    rows, drop = rows[mine], torch.from_numpy(drop[mine])
    prompts, thoughts = [examples.prompts[i] for i in rows], [examples.thoughts[i] for i in rows]
    return policy.teacher_forced(prompts, thoughts, examples.image_tokens[rows].long(), sampling, drop)


def global_counts(batch: Rollouts, team: Team) -> SegmentCounts:
    """Trained tokens of the whole step, over all processes: what every micro-batch divides by."""
    return SegmentCounts(**team.add(dataclasses.asdict(count_segments(batch.mask, batch.is_image))))


def num_passes(batch: Rollouts, config: SftConfig) -> int:
    """Micro-batches that `accumulate` makes of this process's rows."""
    return math.ceil(len(batch) / config.micro_rows)


def accumulate(policy: Policy, batch: Rollouts, counts: SegmentCounts, config: SftConfig) -> dict[str, float]:
    """Add the gradients of this process's rows, `micro_rows` at a time; over processes the sums are means."""
    sums: dict[str, Any] = {"loss": 0.0, "text_nats": 0.0, "image_nats": 0.0}
    by_length = torch.argsort((batch.segment >= 0).sum(1) + batch.prompt_mask.sum(1), stable=True)
    for rows in by_length.split(config.micro_rows):
        micro = batch.select(rows)
        nll = -policy.log_probs(micro).log_probs
        loss = segment_loss(
            nll, micro.mask, micro.is_image, config.text_weight, config.image_weight, config.reduction, counts
        )
        loss.backward()
        means = masked_modality_mean(nll.detach(), micro.mask, micro.is_image, counts)
        for name, value in zip(sums, (loss.detach(), means.text, means.image)):
            sums[name] += value
    return {name: float(value) for name, value in sums.items()}
