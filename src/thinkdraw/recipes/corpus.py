"""Write a corpus of rationales (thoughts to learn from) with a teacher model.

    thinkdraw corpus write lab_corpus

The teacher describes given pictures, or plans pictures for prompts, which a policy then draws. The corpus is the same in
whatever order the teacher answers, and however often the run was stopped.
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from thinkdraw.benchmarks.lab.thoughts import draw_from_thoughts
from thinkdraw.config import StrictModel
from thinkdraw.corpus.progress import CorpusProgress
from thinkdraw.corpus.queue import Queue
from thinkdraw.corpus.settings import CorpusSettings
from thinkdraw.corpus.sources import Item, PromptSource
from thinkdraw.corpus.teachers.endpoint import EndpointSettings, EndpointTeacher
from thinkdraw.corpus.teachers.teachers import GrammarSettings, GrammarTeacher, Teacher, WriterTeacher
from thinkdraw.corpus.writing import Helpers, write
from thinkdraw.data.prompt_files import read_training_prompts
from thinkdraw.errors import UserError
from thinkdraw.images import to_png
from thinkdraw.policies.drawing import choose_drawing, usual_drawing
from thinkdraw.policies.opening import load_trained
from thinkdraw.rewards.opening import RewardSettings, on_device, open_judge, open_reward
from thinkdraw.runtime.device import pick_device, set_threads
from thinkdraw.search import BestOfN
from thinkdraw.training.known_tests import refuse_published_tests
from thinkdraw.types import Policy, Prompt, Questioner, Reward, Rollouts, Sampling, SamplingOverrides, Scorer, Writer


class DrawSettings(StrictModel):
    """How pictures are drawn for prompts that have none.

    Several are drawn from the teacher's rationale, and the best is kept.
    """

    policy: str = Field(
        default="lab",
        description="The policy that draws: checkpoint folder, run folder (its best checkpoint), model id, or `lab`.",
    )
    reward: RewardSettings = Field(
        default=RewardSettings(),
        description="The reward that chooses the best of the pictures: its name and what it is made with.",
    )
    candidates: int = Field(default=4, ge=1, description="Pictures drawn for each rationale; the best one is kept.")
    sampling: SamplingOverrides = Field(
        default=SamplingOverrides(max_thought_tokens=96),
        description="What to change of how the policy was trained to draw; the thought is the teacher's rationale.",
    )
    batch: int = Field(
        default=16,
        ge=1,
        description="Rationales whose pictures are drawn together; it is also what a killed run loses.",
    )


class CorpusConfig(CorpusSettings):
    """Settings of a corpus: `CorpusSettings`, and how missing pictures are drawn."""

    recipe: Literal["corpus"] = Field(
        default="corpus", description="Names the recipe that this configuration is for; always `corpus`."
    )
    draw: DrawSettings | None = Field(
        default=None,
        description="Draw pictures for rows that have none, from the teacher's rationale; null leaves these rows "
        "without.",
    )
    device: str = Field(
        default="auto",
        description="Where the network runs: auto, cpu, cuda or mps. auto takes an accelerator where there is one.",
    )
    num_threads: int | None = Field(
        default=None, ge=1, description="CPU threads that torch uses; null follows OMP_NUM_THREADS."
    )


def run(config: CorpusConfig) -> Path:
    """Write the corpus, or go on after a stop; return its folder. Raises UserError."""
    set_threads(config.num_threads)
    if isinstance(config.source, PromptSource):
        refuse_published_tests(config.source.path, read_training_prompts(config.source.path))
    with CorpusProgress() as show:
        return write(config, open_teacher(config), open_helpers(config), show)


def open_teacher(config: CorpusConfig) -> Teacher:
    """Open the teacher that writes the rationales. Raises UserError."""
    settings = config.teacher
    if isinstance(settings, EndpointSettings):
        return EndpointTeacher(settings)
    if isinstance(settings, GrammarSettings):
        return GrammarTeacher()
    writer = open_judge(settings.name, **settings.settings)
    if not isinstance(writer, Writer):
        raise UserError(
            f"teacher.name={settings.name} does not answer in words. Choose a judge that writes, such as vlm."
        )
    return WriterTeacher(writer, settings)


def open_helpers(config: CorpusConfig) -> Helpers:
    """Open the filters' judges and the drawing policy, as far as they are configured."""
    contradiction, aesthetic = config.filters.contradiction, config.filters.aesthetic
    questioner = _open_judge(contradiction.questioner, contradiction.settings, config.device) if contradiction else None
    scorer = _open_judge(aesthetic.scorer, aesthetic.settings, config.device) if aesthetic else None
    if questioner is not None and not isinstance(questioner, Questioner):
        raise UserError(
            f"filters.contradiction.questioner={contradiction and contradiction.questioner} answers no questions. Choose "
            "a judge that does, such as vlm."
        )
    if scorer is not None and not isinstance(scorer, Scorer):
        raise UserError(
            f"filters.aesthetic.scorer={aesthetic and aesthetic.scorer} gives no scores. Choose one that does, such as "
            "aesthetic."
        )
    return Helpers(questioner, scorer, RationaleDrawer(config.draw, config.device) if config.draw else None)


def _open_judge(name: str, settings: dict[str, Any], device: str) -> Any:
    return open_judge(name, **on_device(name, settings, device))


class RationaleDrawer:
    """Draws N pictures of each rationale and keeps the best; a `writing.Draw`.

    Items that have a picture already are skipped.
    """

    def __init__(self, settings: DrawSettings, device: str, reward: Reward | None = None) -> None:
        self.settings = settings
        self.policy = load_trained(settings.policy, device=str(pick_device(device)), precision="fp32")
        changes = settings.sampling
        if changes.thought is None and usual_drawing(self.policy).thought == "off":
            changes = changes.model_copy(update={"thought": "inline"})  # the rationale is the thought
        self.sampling = choose_drawing(self.policy, changes).sampling
        self.reward = reward or open_reward(settings.reward.name, **settings.reward.settings)

    def __call__(self, queue: Queue, rows: Iterator[tuple[Item, dict[str, Any]]]) -> None:
        done = queue.drawn_indices()
        undrawn = (row for row in rows if row[0].index not in done)
        while batch := list(islice(undrawn, self.settings.batch)):
            queue.add_pictures({item.index: png for (item, _), png in zip(batch, self._draw(batch))})

    def _draw(self, rows: Sequence[tuple[Item, dict[str, Any]]]) -> list[bytes]:
        """Draw a picture per row: PNG files, empty where a prompt is too long."""
        thoughts = [answer["detailed_caption"] for _, answer in rows]
        seeds = [2 * item.index * self.settings.candidates for item, _ in rows]
        drawer: Any = _FixedThoughtPolicy(self.policy, thoughts)  # has those members of a policy that best-of-N uses
        best = BestOfN(drawer, self.reward, self.settings.candidates)
        try:
            drawn = best.sample([item.prompt for item, _ in rows], self.sampling, seeds=seeds)
        except UserError:
            # A prompt of the batch is too long: draw one by one, so that only that prompt goes without a picture.
            return [b""] if len(rows) == 1 else [png for row in rows for png in self._draw([row])]
        assert drawn.pictures is not None
        return [to_png(picture) for picture in drawn.pictures.cpu()]


class _FixedThoughtPolicy:
    """A policy with fixed thoughts: it only draws."""

    def __init__(self, policy: Policy, thoughts: Sequence[str]) -> None:
        self._policy, self._thoughts = policy, thoughts
        self.revision = policy.revision

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling, *, seeds: Sequence[int] | Tensor) -> Rollouts:
        return draw_from_thoughts(self._policy, prompts, self._thoughts, sampling, torch.as_tensor(seeds).tolist())
