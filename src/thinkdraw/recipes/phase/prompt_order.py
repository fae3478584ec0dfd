"""Which prompts a phase takes: an endless shuffled order, mixes that follow each other, and a memory of what is solved.

Staged mixes and history resampling: SRPO (arXiv 2504.14286), whose second stage trains on another kind of prompts and whose
later epochs leave out prompts that every rollout solves.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from thinkdraw.config import StrictModel
from thinkdraw.runtime.checkpoint import State
from thinkdraw.training.data import DataSettings, load_prompts, prompts_input, prompts_that_fit, shuffled_index
from thinkdraw.training.run import Run
from thinkdraw.types import Policy, Prompt, Sampling


class MixSettings(StrictModel):
    """Prompts for some phases; the mix that is named next follows."""

    phases: int = Field(
        ge=1, description="Number of phases that take their prompts from here, before the next stage follows."
    )
    prompts: DataSettings = Field(
        default=DataSettings(), description="Prompts of this stage: where they come from and how many."
    )


class HistorySettings(StrictModel):
    solved_reward: float = Field(
        description="Reward that counts as solved. A prompt whose last group reached it with every rollout is "
        "skipped when its turn comes."
    )
    readmit_frac: float = Field(
        default=0.05,
        ge=0,
        le=1,
        description="Share of solved prompts that are drawn all the same, to notice what is forgotten; 0 skips "
        "all of them.",
    )


class PromptOrder:
    """The prompts of a run in the order in which phases take them: the same order for the same seed and rewards.

    mixes: (phases that it is taken from, prompts), one after the other; the last one, with None, is taken for good.
    sources: setting → where the mix of that place is from.
    cursor: place in the endless order that comes next. skipped: how often a solved prompt was left out.
    """

    def __init__(
        self, mixes: Sequence[tuple[int | None, list[Prompt]]], seed: int, history: HistorySettings | None = None
    ) -> None:
        self.mixes, self.seed, self.history = list(mixes), seed, history
        self.sources: dict[str, DataSettings] = {}
        self.cursor, self.skipped = 0, 0
        # Prompt → mean, std, min and max of its last group's rewards, and the phase that group was of.
        self.table: dict[str, dict[str, float]] = {}

    @staticmethod
    def of(
        prompts: DataSettings, stages: Sequence[MixSettings], seed: int, history: HistorySettings | None,
        folder: Path | None = None,
    ) -> "PromptOrder":  # fmt: skip
        """`stages` in turn, then `prompts` for good. folder: of the run."""
        mixes: list[tuple[int | None, list[Prompt]]] = [
            (stage.phases, load_prompts(stage.prompts, folder)) for stage in stages
        ]
        order = PromptOrder([*mixes, (None, load_prompts(prompts, folder))], seed, history)
        named = {f"stages.{place}.prompts": stage.prompts for place, stage in enumerate(stages)}
        order.sources = {**named, "prompts": prompts}
        return order

    def keep_what_fits(self, run: Run[Policy], sampling: Sampling) -> None:
        """Leave out, or cut, prompts that the policy has no room for, and have the run note what is left.

        Raises UserError where that is to be refused.
        """
        for place, (key, settings) in enumerate(self.sources.items()):
            phases, prompts = self.mixes[place]
            prompts = prompts_that_fit(run.policy, prompts, settings, sampling, key)
            self.mixes[place] = phases, prompts
            run.note(f"{key}.source", prompts_input(prompts, settings.source))

    def all_prompts(self) -> list[Prompt]:
        return [prompt for _, prompts in self.mixes for prompt in prompts]

    def take(self, count: int, phase: int) -> list[Prompt]:
        """The next `count` prompts, for the phase of that number. A mix of solved prompts only is drawn all the same."""
        prompts = self._mix(phase)
        taken: list[Prompt] = []
        in_a_row = 0  # solved ones; after a whole pass of them there are no others
        while len(taken) < count:
            place, self.cursor = self.cursor, self.cursor + 1
            prompt = prompts[shuffled_index(place, len(prompts), self.seed)]
            if self._is_solved(prompt) and not self._readmitted(place) and in_a_row < len(prompts):
                in_a_row, self.skipped = in_a_row + 1, self.skipped + 1
            else:
                taken.append(prompt)
                in_a_row = 0
        return taken

    def record(self, prompts: Sequence[Prompt], rewards: Tensor, phase: int) -> None:
        """Remember the rewards (P, G) of the prompts' groups; NaN = no verdict, and a group without any changes nothing."""
        for prompt, row in zip(prompts, rewards.tolist(), strict=True):
            known = [value for value in row if not math.isnan(value)]
            if known:
                self.table[_key(prompt)] = {
                    "mean": float(np.mean(known)), "std": float(np.std(known)), "min": min(known), "max": max(known),
                    "phase": phase,
                }  # fmt: skip

    def progress(self) -> dict[str, int]:
        """For metrics.jsonl: prompts that are solved, and how often one was skipped; empty without a history."""
        return {"prompts_solved": self.num_solved, "prompts_skipped": self.skipped} if self.history else {}

    @property
    def num_solved(self) -> int:
        return sum(self.history is not None and row["min"] >= self.history.solved_reward for row in self.table.values())

    def _mix(self, phase: int) -> list[Prompt]:
        """The prompts that are taken from in the phase of that number."""
        for phases, prompts in self.mixes[:-1]:
            if phases is None or phase < phases:
                return prompts
            phase -= phases
        return self.mixes[-1][1]

    def _is_solved(self, prompt: Prompt) -> bool:
        row = self.table.get(_key(prompt)) if self.history else None
        return row is not None and self.history is not None and row["min"] >= self.history.solved_reward

    def _readmitted(self, place: int) -> bool:
        """Whether a solved prompt is taken all the same: by lot, which follows from its place in the endless order."""
        assert self.history is not None
        rng = np.random.default_rng([self.seed, 7, place])  # 7 keeps it apart from the run's other random numbers
        return bool(rng.random() < self.history.readmit_frac)

    def state_dict(self) -> State:
        names = list(self.table)
        columns = ("mean", "std", "min", "max", "phase")
        numbers = torch.tensor([[self.table[n][c] for c in columns] for n in names], dtype=torch.float64)
        return {"cursor": self.cursor, "skipped": self.skipped, "names": names, "table": numbers.reshape(-1, 5)}

    def load_state_dict(self, state: State) -> None:
        self.cursor, self.skipped = state["cursor"], state["skipped"]
        columns = ("mean", "std", "min", "max", "phase")
        self.table = {
            name: dict(zip(columns, row, strict=True))
            for name, row in zip(state["names"], state["table"].tolist(), strict=True)
        }


def _key(prompt: Prompt) -> str:
    """What a prompt is known by in the table: its text, for an id may be a line's number, and files follow each other."""
    return prompt.text
