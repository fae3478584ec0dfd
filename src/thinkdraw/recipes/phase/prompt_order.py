"""The order of a run's prompts: shuffled, in staged mixes, without solved ones.

Staged mixes and history resampling come from SRPO (arXiv 2504.14286): its second stage trains on another kind of prompt, and
its later epochs leave out prompts that every rollout solves.
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
    """Prompts for a number of phases; the next mix in the list follows."""

    phases: int = Field(
        ge=1, description="Number of phases that take their prompts from here, before the next stage follows."
    )
    prompts: DataSettings = Field(
        default=DataSettings(), description="Prompts of this stage: where they come from and how many."
    )


class HistorySettings(StrictModel):
    """When a prompt counts as solved, and how often a solved one is drawn again."""

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
    """The prompts of a run in the order in which phases take them.

    Seed and rewards alone decide the order.
    mixes: (number of phases, prompts), in order; the last one has None and lasts to the end of the run.
    sources: setting → settings of the mix at the same index.
    cursor: index in the endless order that comes next. skipped: how often a solved prompt was left out.
    """

    def __init__(
        self, mixes: Sequence[tuple[int | None, list[Prompt]]], seed: int, history: HistorySettings | None = None
    ) -> None:
        self.mixes, self.seed, self.history = list(mixes), seed, history
        self.sources: dict[str, DataSettings] = {}
        self.cursor, self.skipped = 0, 0
        # Prompt → mean, std, min and max of its last group's rewards, and the phase of that group.
        self.table: dict[str, dict[str, float]] = {}

    @staticmethod
    def of(
        prompts: DataSettings, stages: Sequence[MixSettings], seed: int, history: HistorySettings | None,
        folder: Path | None = None,
    ) -> "PromptOrder":  # fmt: skip
        """Read the prompts: those of `stages` in turn, then `prompts` to the end.

        folder: of the run. Raises UserError.
        """
        mixes: list[tuple[int | None, list[Prompt]]] = [
            (stage.phases, load_prompts(stage.prompts, folder)) for stage in stages
        ]
        order = PromptOrder([*mixes, (None, load_prompts(prompts, folder))], seed, history)
        staged = {f"stages.{index}.prompts": stage.prompts for index, stage in enumerate(stages)}
        order.sources = {**staged, "prompts": prompts}
        return order

    def fit_to_policy(self, run: Run[Policy], sampling: Sampling) -> None:
        """Drop or cut prompts that are too long for the policy; note the rest as inputs.

        Raises UserError for one that is too long, where the settings neither drop nor cut.
        """
        for index, (key, settings) in enumerate(self.sources.items()):
            phases, prompts = self.mixes[index]
            prompts = prompts_that_fit(run.policy, prompts, settings, sampling, key)
            self.mixes[index] = phases, prompts
            run.note(f"{key}.source", prompts_input(prompts, settings.named))

    def all_prompts(self) -> list[Prompt]:
        """Return the prompts of all mixes."""
        return [prompt for _, prompts in self.mixes for prompt in prompts]

    def take(self, count: int, phase: int) -> list[Prompt]:
        """Take the next `count` prompts, for this phase.

        Solved ones are skipped, unless the mix has no others.
        """
        prompts = self._mix(phase)
        taken: list[Prompt] = []
        num_skipped = 0  # in a row; after a whole pass of solved prompts there are no others
        while len(taken) < count:
            index, self.cursor = self.cursor, self.cursor + 1
            prompt = prompts[shuffled_index(index, len(prompts), self.seed)]
            if self._is_solved(prompt) and not self._is_readmitted(index) and num_skipped < len(prompts):
                num_skipped, self.skipped = num_skipped + 1, self.skipped + 1
            else:
                taken.append(prompt)
                num_skipped = 0
        return taken

    def record(self, prompts: Sequence[Prompt], rewards: Tensor, phase: int) -> None:
        """Remember the rewards (P, G) of the prompts' groups; NaN = no verdict.

        A group without any verdict leaves the memory as it is.
        """
        for prompt, group in zip(prompts, rewards.tolist(), strict=True):
            known = [value for value in group if not math.isnan(value)]
            if known:
                self.table[_key(prompt)] = {
                    "mean": float(np.mean(known)), "std": float(np.std(known)), "min": min(known), "max": max(known),
                    "phase": phase,
                }  # fmt: skip

    def progress(self) -> dict[str, int]:
        """Count solved prompts and skips, for metrics.jsonl; empty without a history."""
        return {"prompts_solved": self.num_solved, "prompts_skipped": self.skipped} if self.history else {}

    @property
    def num_solved(self) -> int:
        """Prompts whose last group was solved by every rollout."""
        return sum(self.history is not None and row["min"] >= self.history.solved_reward for row in self.table.values())

    def _mix(self, phase: int) -> list[Prompt]:
        """Select the mix of a phase."""
        for phases, prompts in self.mixes[:-1]:
            if phases is None or phase < phases:
                return prompts
            phase -= phases
        return self.mixes[-1][1]

    def _is_solved(self, prompt: Prompt) -> bool:
        row = self.table.get(_key(prompt)) if self.history else None
        return row is not None and self.history is not None and row["min"] >= self.history.solved_reward

    def _is_readmitted(self, index: int) -> bool:
        """Decide whether a solved prompt is taken all the same.

        A random number decides that depends on seed and index alone, so that a run that goes on decides the same.
        """
        assert self.history is not None
        rng = np.random.default_rng([self.seed, 7, index])  # 7 separates it from the run's other random streams
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
    """Return a prompt's key in the table: its text.

    Its id would not do: it may be a line number, which prompts of several files share.
    """
    return prompt.text
