"""Supervised fine-tuning (SFT): learn prompt → thought → picture from examples.

    thinkdraw train lab_sft

    loss = text_weight · mean cross-entropy of text tokens + image_weight · mean cross-entropy of image tokens

Text and image tokens have separate means (`objectives/sft.py`). A tenth of the rows (`drop_frac`) has prompt and thought
blanked, exactly as guidance blanks them at sampling: they train the unconditional branch.
ReasonGen-R1 (arXiv 2505.24875), which has one mean over both (`reduction=token`).
"""

import dataclasses
import time
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, model_validator

from thinkdraw.objectives import SegmentCounts, masked_modality_mean, segment_loss
from thinkdraw.policies.drawing import usual_drawing
from thinkdraw.training.batch import Batch
from thinkdraw.training.data import DataSettings, Examples, load_examples
from thinkdraw.training.run import Loss, Run
from thinkdraw.training.settings import OptimiserSettings, TrainSettings
from thinkdraw.training.world import World
from thinkdraw.types import Policy, Sampling, ThoughtFormat

# Settings of sampling that a row is read with; the others have no part in SFT.
SCRIPT = ("thought", "max_thought_tokens", "prompt_form", "thought_instruction", "thought_system_prompt")


class SftConfig(TrainSettings):
    """Settings of SFT; `TrainSettings` has those that all recipes share."""

    can_shard: ClassVar[bool] = True
    recipe: Literal["sft"] = Field(
        default="sft", description="Names the recipe that this configuration is for; always `sft`."
    )
    out: Path = Field(
        default=Path("runs/lab_sft"),
        description="Folder of the run: configuration, metrics and checkpoints. A stopped run goes on there.",
    )
    data: DataSettings = Field(
        default=DataSettings(),
        description="Rows to imitate, each a prompt, a thought and a picture: where they come from and how many.",
    )
    batch_rows: int = Field(
        default=64, ge=1, description="Sequences that each optimiser step learns from, over all processes."
    )
    bucket_batches: int = Field(
        default=4,
        ge=1,
        description="Rows are sorted by length within this many batches. More means less padding, and batches of "
        "more even length; 1 does not sort.",
    )
    thought: ThoughtFormat = Field(
        default="inline",
        description="inline: the thought stands between prompt and picture; rewrite: the picture follows prompt "
        "and thought in a fresh context; off: pictures only.",
    )
    max_thought_tokens: int = Field(
        default=96,
        ge=1,
        description="Longest thought in tokens. A longer one is cut there; corpus.over_long says what happens to "
        "a corpus's.",
    )
    prompt_form: str | None = Field(
        default=None,
        description="What the policy reads in place of the bare prompt, with {} where the prompt stands; the run's "
        "checkpoints record it, and are drawn with it. null is the prompt itself.",
    )
    thought_instruction: str | None = Field(
        default=None,
        description="For thought=rewrite: what the policy reads before it writes the thought, with {} where the "
        "prompt stands. null is the prompt in its form.",
    )
    thought_system_prompt: str | None = Field(
        default=None, description="For thought=rewrite: a system prompt in front of thought_instruction; null is none."
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
    drop_frac: float = Field(
        default=0.1,
        ge=0,
        lt=1,
        description="Share of rows whose prompt and thought are blanked, which trains the unconditional branch "
        "of guidance; 0 for a policy drawn without guidance.",
    )
    optimiser: OptimiserSettings = Field(
        default=OptimiserSettings(learning_rate=3e-4, warmup_steps=20, schedule="cosine", weight_decay=0.01),
        description="AdamW, its learning rate and its schedule.",
    )

    def too_many_processes(self, size: int) -> str | None:
        if self.batch_rows >= size:
            return None
        return f"batch_rows={self.batch_rows} over {size} processes leaves a process without a row. Raise batch_rows."

    @property
    def sampling(self) -> Sampling:
        """How rows are read and scored: without guidance, at temperature 1."""
        return Sampling.model_validate({key: getattr(self, key) for key in SCRIPT})

    @model_validator(mode="after")
    def _forms_have_a_place(self) -> "SftConfig":
        assert self.sampling  # raises for a form without a place, and for an instruction that nothing reads
        return self

    @model_validator(mode="after")
    def _passes_are_alike(self) -> "SftConfig":
        if self.sharding != "none" and self.thought == "rewrite" and self.drop_frac > 0:
            raise ValueError(
                "sharding=fsdp2 cannot be used with thought=rewrite and drop_frac above 0: rows that are dropped have no "
                "thought to train, so processes would make different passes. Set drop_frac=0, or sharding=none"
            )
        return self


def run(config: SftConfig) -> Path:
    """Train, and return the run folder. Raises UserError.

    The newest checkpoint is the result.
    """
    with Run.open(config) as run:
        sampling, base_drawing = config.sampling, usual_drawing(run.policy)
        cache = config.out / "data" / "image_tokens.safetensors"
        examples = load_examples(
            config.data, run.policy, config.max_thought_tokens, cache, run.world.is_main, sampling=sampling,
            at_least=config.batch_rows,
        )  # fmt: skip
        run.note("data.source", examples.as_input(config.data.source))
        # The result draws by the script that it learned, with the starting policy's guidance and temperature.
        script = {key: getattr(sampling, key) for key in SCRIPT}
        run.begin(examples.prompts, sampling, base_drawing.model_copy(update=script))
        while run.goes_on:
            began = time.monotonic()
            with run.clock("seconds_learning"):
                batch = step_batch(run.policy, examples, config, sampling, run.step, run.world)
                # Counts over all processes: the denominators of every micro-batch's loss.
                counts = SegmentCounts(**run.world.sum(dataclasses.asdict(batch.counts())))
                update = run.update(partial(sft_loss, run.policy, counts=counts, config=config), batch, sampling)
            tokens = counts.text + counts.image
            run.ledger.add(sequences_trained=counts.sequences, tokens_trained=tokens)
            row = update.row() | {"tokens_per_s": tokens / (time.monotonic() - began)}
            run.log(row, ("loss", "text_nats", "image_nats", "grad_norm", "tokens_per_s"))
            run.save_when_due()
    return run.path


def step_batch(
    policy: Policy, examples: Examples, config: SftConfig, sampling: Sampling, step: int, world: World
) -> Batch:
    """Make this process's rows of a step's batch.

    Seed and step alone decide the rows and which of them are dropped (for guidance), so that any number of processes
    trains on the same batch, and so does a run that goes on after a stop.
    """
    epoch, index = divmod(step, len(examples) // config.batch_rows)
    rows = examples.batches(config.batch_rows, config.bucket_batches, config.seed, epoch)[index]
    drop = np.random.default_rng([config.seed, 1, step]).random(len(rows)) < config.drop_frac
    mine = slice(world.rank, None, world.size)
    rows, drop = rows[mine], torch.from_numpy(drop[mine])
    prompts, thoughts = [examples.prompts[i] for i in rows], [examples.thoughts[i] for i in rows]
    return Batch(policy.teacher_forced(prompts, thoughts, examples.image_tokens[rows].long(), sampling, drop))


def sft_loss(policy: Policy, micro: Batch, *, counts: SegmentCounts, config: "SftConfig") -> Loss:
    """Compute a micro-batch's share of the step's cross-entropy.

    counts: trained tokens of the whole step, over all processes, by which every micro-batch divides.
    """
    mask, is_image = micro.rollouts.mask, micro.rollouts.is_image
    nll = -policy.log_probs(micro.rollouts).log_probs
    loss = segment_loss(nll, mask, is_image, config.text_weight, config.image_weight, config.reduction, counts)
    means = masked_modality_mean(nll.detach(), mask, is_image, counts)
    return Loss(loss, {"loss": loss, "text_nats": means.text, "image_nats": means.image})
