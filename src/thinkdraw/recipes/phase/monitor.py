"""Detection of overoptimisation (reward hacking) by a reward that is only watched.

A policy learns whatever its reward pays for, mistakes of the judge included. When it exploits these, the optimised reward
goes on rising while a monitor falls: the two have *diverged* (column `parted` of metrics.jsonl). The first divergence is a
warning; `stop_after` validations in a row that diverge end the run.
"""

import math

from pydantic import Field, model_validator

from thinkdraw.config import StrictModel
from thinkdraw.rewards.opening import RewardSettings
from thinkdraw.runtime.checkpoint import State
from thinkdraw.training.data import DataSettings

Scores = dict[str, float | None]  # column of metrics.jsonl → mean reward of a validation, None without any verdict
OPTIMISED = "validation_score"  # the column of the optimised reward; a monitor's is monitor/NAME


class MonitorSettings(RewardSettings):
    """A reward that is watched, and never optimised."""

    label: str | None = Field(
        default=None,
        description="Name of this monitor's column in metrics.jsonl, monitor/LABEL; null takes the reward's name.",
    )

    @property
    def column(self) -> str:
        """The name after `monitor/` in its column of metrics.jsonl."""
        return self.label or self.name


class ValidationSettings(StrictModel):
    """How a run validates: fixed prompts and seeds, never those of a test set."""

    every: int = Field(
        default=10,
        ge=0,
        description="Phases between validations, and one more after the last phase; 0 never validates, and then "
        "no checkpoint is best.",
    )
    prompts: DataSettings = Field(
        default=DataSettings(split="validation", count=64),
        description="Validation prompts, each drawn once and always with the same seeds; never a test set.",
    )
    monitors: list[MonitorSettings] = Field(
        default=[],
        description="Rewards that are measured and never optimised; the first one is watched for over-optimisation.",
    )
    best_by: str | None = Field(
        default=None,
        description="Label of the monitor whose score chooses the best checkpoint; null: the optimised reward chooses.",
    )
    margin: float = Field(
        default=0.02,
        ge=0,
        description="How far the first monitor must fall from its peak, while the reward does not, to count as "
        "over-optimisation; in the monitor's units.",
    )
    stop_after: int | None = Field(
        default=None,
        ge=1,
        description="Stop the run after this many over-optimised validations in a row; null only warns.",
    )

    @model_validator(mode="after")
    def _monitors_are_there(self) -> "ValidationSettings":
        names = [monitor.column for monitor in self.monitors]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(
                f"several monitors are called {twice[0]} and would share a column: give each its own label"
            )
        if self.best_by is not None and self.best_by not in names:
            raise ValueError(
                f"best_by={self.best_by} is not one of the monitors ({', '.join(names) or 'there are none'}): add it there"
            )
        if self.stop_after is not None and not names:
            raise ValueError("stop_after needs a monitor to compare the reward with: name one in monitors")
        return self


class OveroptimisationMonitor:
    """Compares the optimised reward with the first monitor since that monitor's peak.

    peak: both values and the optimiser step of the validation at which the monitor was highest. num_diverged: latest
    validations in a row at which the two had diverged.
    """

    def __init__(self, settings: ValidationSettings) -> None:
        self.settings = settings
        self.peak = {"monitor": -math.inf, "optimised": -math.inf, "step": 0}
        self.num_diverged = 0

    def update(self, scores: Scores, step: int) -> str | None:
        """Take in a validation's scores; warn if reward and monitor have diverged.

        They have if, since the monitor's peak, the monitor fell by more than `margin` and the optimised reward did not
        fall. Returns the warning, None where there is nothing to warn of.
        """
        if not self.settings.monitors:
            return None
        name = self.settings.monitors[0].column
        optimised, monitor = scores[OPTIMISED], scores[f"monitor/{name}"]
        if optimised is None or monitor is None:
            return None
        if monitor > self.peak["monitor"]:
            self.peak = {"monitor": monitor, "optimised": optimised, "step": step}
        fell = monitor < self.peak["monitor"] - self.settings.margin
        self.num_diverged = self.num_diverged + 1 if fell and optimised >= self.peak["optimised"] else 0
        if not self.num_diverged:
            return None
        return (
            f"since step {self.peak['step']:.0f} the reward rose from {self.peak['optimised']:.3f} to {optimised:.3f} while "
            f"{name} fell from {self.peak['monitor']:.3f} to {monitor:.3f}: the policy may be exploiting mistakes of the judge."
        )

    @property
    def should_stop(self) -> bool:
        """Whether the two have diverged often enough to end the run."""
        return self.settings.stop_after is not None and self.num_diverged >= self.settings.stop_after

    def state_dict(self) -> State:
        return {"peak": dict(self.peak), "parted": self.num_diverged}

    def load_state_dict(self, state: State) -> None:
        self.peak, self.num_diverged = dict(state["peak"]), state["parted"]
