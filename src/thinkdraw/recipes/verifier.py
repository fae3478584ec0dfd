"""Train a verifier: a model that judges whether a picture shows its prompt.

    thinkdraw corpus write lab_verifier_data
    thinkdraw train lab_verifier

It may also learn whether an unfinished picture can still become right (`tasks`). The loss is the cross-entropy of yes and no
on balanced labels. Some prompts are held out: on their pictures AUROC and calibration are measured before and after.
The result is a judge's checkpoint, for `reward.name=orm` with the questioner `{name: policy, policy: RUN}` (a Janus) or
`{name: vlm, path: …}` (another model).
Fine-tuned outcome and potential reward models: Guo et al. 2025 (PARM, arXiv 2501.13926).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from thinkdraw.benchmarks.calibration import Calibration, calibration, draw_calibration
from thinkdraw.data.picture_bytes import bytes_of
from thinkdraw.errors import UserError
from thinkdraw.picture_reader import read_picture
from thinkdraw.policies.opening import policy_path
from thinkdraw.recipes.verifier_learner import Learner, open_learner
from thinkdraw.rewards.judging import fill_template
from thinkdraw.rewards.vqa_yes import ORM_QUESTION
from thinkdraw.runtime.checkpoint import State
from thinkdraw.runtime.files import atomic_write_json
from thinkdraw.runtime.formats import name_file_in_errors, read_parquet
from thinkdraw.runtime.inputs.run_inputs import Input
from thinkdraw.runtime.json_types import JsonObject
from thinkdraw.training.data import shuffled_index
from thinkdraw.training.run import Loss, Run, prepare_layers
from thinkdraw.training.settings import OptimiserSettings, TrainSettings
from thinkdraw.training.world import World

Task = Literal["orm", "clarity", "potential"]
QUESTIONS: dict[Task, str] = {
    "orm": ORM_QUESTION,
    "clarity": (
        "This image is a part of the way to an image of: {prompt}. Is it clear enough to judge it? "
        "Please answer yes or no without explanation."
    ),
    "potential": (
        "This image is a part of the way to an image of: {prompt}. Can it still become one that accurately represents "
        "the prompt? Please answer yes or no without explanation."
    ),
}


class VerifierConfig(TrainSettings):
    """Settings of a verifier; `TrainSettings` has those that all recipes share."""

    recipe: Literal["verifier"] = Field(
        default="verifier", description="Names the recipe that this configuration is for; always `verifier`."
    )
    out: Path = Field(
        default=Path("runs/lab_verifier"),
        description="Folder of the run: configuration, metrics, checkpoints and calibration. A stopped run goes "
        "on there.",
    )
    data: Path = Field(
        default=Path("runs/lab_verifier_data"),
        description="Folder of labelled pictures, as `thinkdraw corpus write lab_verifier_data` writes them.",
    )
    tasks: list[Task] = Field(
        default=["orm"],
        min_length=1,
        description="Questions to learn (PARM, arXiv 2501.13926): orm, is the picture right; clarity, can it be "
        "judged yet; potential, will it become right.",
    )
    test_frac: float = Field(
        default=0.2,
        gt=0,
        lt=1,
        description="Share of the prompts that are held out, to measure AUROC and calibration before and after.",
    )
    batch_rows: int = Field(
        default=32, ge=1, description="Questions that each optimiser step learns from, over all processes."
    )
    optimiser: OptimiserSettings = Field(
        default=OptimiserSettings(learning_rate=2e-4, warmup_steps=10, schedule="cosine"),
        description="AdamW, its learning rate and its schedule.",
    )


@dataclass(frozen=True)
class LabelledQuestions:
    """R questions about pictures with right answers; `Run.update` steps on them.

    pictures: (R, H, W, 3) uint8. labels: (R,) float32, 1 = yes. prompts: the prompt that each question is about.
    """

    pictures: Tensor
    questions: list[str]
    labels: Tensor
    prompts: list[str]

    def select(self, rows: Sequence[int] | np.ndarray) -> "LabelledQuestions":
        """Select rows by index."""
        index = np.asarray(rows, dtype=np.int64)
        return LabelledQuestions(
            self.pictures[index], [self.questions[i] for i in index], self.labels[index], [self.prompts[i] for i in index]
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.questions)

    def micro(self, rows: int) -> "Iterator[LabelledQuestions]":
        """Split into micro-batches of up to `rows` questions, of equal size up to one."""
        for indices in np.array_split(np.arange(len(self)), self.num_micro(rows)) if len(self) else ():
            yield self.select(indices)

    def num_micro(self, rows: int) -> int:
        """Count the micro-batches of `micro`."""
        return math.ceil(len(self) / rows)

    def split(self, test_frac: float) -> tuple["LabelledQuestions", "LabelledQuestions"]:
        """Split into training and test questions.

        All questions about a prompt are on one side, since pictures of one prompt are alike. The run's seed does not change
        the split, so that runs of several seeds are tested on the same prompts.
        """
        texts = sorted(set(self.prompts))
        held_out = {texts[i] for i in np.random.default_rng(0).permutation(len(texts))[: round(test_frac * len(texts))]}
        is_test = np.array([prompt in held_out for prompt in self.prompts])
        return self.select(np.flatnonzero(~is_test)), self.select(np.flatnonzero(is_test))


@dataclass
class Baseline:
    """The untrained judge's calibration; the field's name is a key of checkpoints."""

    before: State = field(default_factory=dict)


def run(config: VerifierConfig) -> Path:
    """Train, and return the run folder.

    Its summary.json has AUROC and calibration before and after.
    Raises UserError.
    """
    labelled = read_labels(config.data, config.tasks)
    train, test = labelled.split(config.test_frac)
    if len(train) < config.batch_rows or not len(test):
        raise UserError(
            f"{config.data} has only {len(train)} rows to train on and {len(test)} to test on, of the tasks "
            f"{', '.join(config.tasks)}. Give more, or lower batch_rows={config.batch_rows}."
        )
    with Run.open(config, open_verifier) as run:
        state = run.remember_fields(Baseline())
        content = [labelled.pictures, labelled.labels, *labelled.questions]
        run.note("data", Input.of(config.data, content, len(labelled)))
        run.begin()
        # Measured once: after a stop the baseline is in the checkpoint, and the policy no longer untrained.
        state.before = state.before or measure(run.policy, test, config).as_dict()
        while run.goes_on:
            indices = range(run.step * config.batch_rows, (run.step + 1) * config.batch_rows)
            rows = [shuffled_index(i, len(train), config.seed) for i in indices]
            mine = train.select(rows[run.world.rank :: run.world.size])
            update = run.update(partial(verifier_loss, run.policy, count=len(rows)), mine)
            run.ledger.add(sequences_trained=len(rows))
            run.log(update.row(), ("loss", "accuracy", "grad_norm"))
            run.save_when_due()
        run.save()
        before, after = Calibration(**state.before), measure(run.policy, test, config)
        if run.world.is_main:
            summary = {
                "rows": {"train": len(train), "test": len(test)},
                "before": state.before,
                "after": after.as_dict(),
            }
            atomic_write_json(config.out / "summary.json", summary)
            draw_calibration({"before": before, "after": after}, config.out / "calibration.svg")
    return run.path


def open_verifier(config: VerifierConfig, world: World) -> Learner:
    """Open the model to train on this process's device. Raises UserError."""
    learner = open_learner(policy_path(config.policy), str(world.device), config.dtype, config.precision, config.lora)
    prepare_layers(learner, config)
    return learner


def verifier_loss(learner: Learner, micro: LabelledQuestions, *, count: int) -> Loss:
    """Compute a micro-batch's share of the step's cross-entropy of yes and no.

    count: questions of the whole step, by which every micro-batch divides.
    """
    logits = learner.yes_logits(micro.pictures, micro.questions).float()
    labels = micro.labels.to(logits.device)
    loss = F.binary_cross_entropy_with_logits(logits, labels, reduction="sum") / count
    accuracy = float(((logits > 0) == (labels > 0.5)).float().sum()) / count
    return Loss(loss, {"loss": float(loss.detach()), "accuracy": accuracy})


@torch.no_grad()
def measure(learner: Learner, rows: LabelledQuestions, config: VerifierConfig) -> Calibration:
    """Measure AUROC and calibration on questions that are not trained on."""
    size = config.micro_rows
    chunks = [
        rows.select(np.arange(i, min(i + size, len(rows.questions)))) for i in range(0, len(rows.questions), size)
    ]
    p_yes = torch.cat([torch.sigmoid(learner.yes_logits(c.pictures, c.questions).float()).cpu() for c in chunks])
    return calibration(p_yes.numpy(), rows.labels.numpy() > 0.5, rows.prompts)


def read_labels(folder: Path, tasks: Sequence[Task]) -> LabelledQuestions:
    """Read the questions of a folder of labels.

    Raises UserError for missing files, and for pictures of several sizes.
    """
    files = sorted(Path(folder).glob("data/*.parquet"))
    if not files:
        raise UserError(f"{folder} holds no labels. Make them: thinkdraw corpus write lab_verifier_data out={folder}")
    named = [(f"{file} row {n}", row) for file in files for n, row in enumerate(_rows(file), start=1)]
    named = [(name, row) for name, row in named if row["task"] in tasks]
    pictures, rows = (
        [read_picture(bytes_of(row["image"]) or b"", name=name) for name, row in named],
        [r for _, r in named],
    )
    if len({picture.shape for picture in pictures}) > 1:
        raise UserError(f"{folder} has pictures of several sizes. Make labels of pictures by one policy.")
    if not rows:
        raise UserError(
            f"{folder} has no row of the tasks {', '.join(tasks)}. Set other tasks, or make labels for these."
        )
    return LabelledQuestions(
        torch.from_numpy(np.stack(pictures)), [fill_template(QUESTIONS[row["task"]], row["prompt"]) for row in rows],
        torch.tensor([float(row["label"]) for row in rows]), [row["prompt"] for row in rows],
    )  # fmt: skip


def _rows(file: Path) -> list[JsonObject]:
    table = read_parquet(file, "Its labels cannot be read: make the file again.")
    with name_file_in_errors(file, "Labels need the columns image, prompt, task and label: make the file again."):
        return table.select(["image", "prompt", "task", "label"]).to_pylist()
