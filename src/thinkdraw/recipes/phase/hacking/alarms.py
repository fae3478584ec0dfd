"""Alarms: pictures or rewards are no longer like those that the run began with.

A rule compares a column's median over the latest phases with its median over the first ones. It rings if the change is
larger than healthy training brings (`falls`, `rises`), and larger than the column's own noise. The limits come from runs
of the lab that were hacked and others that were not, as this prints them:

    python bench/alarms.py RUN …

An alarm says where to look and never ends a run: pictures may change for a good reason, as when the prompts do.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from thinkdraw.runtime.tracking import MetricsLog
from thinkdraw.training.display import Display

FIRST = 5  # phases at the start of a run that later ones are compared with
LATEST = 3  # phases whose median is compared: a single odd phase rings nothing
NOISE = 4.0  # standard deviations of a column's noise that a change must exceed
FLOOR = 0.005  # added to shares: a change from one in a thousand to two is none
DIVERGED = 3  # validations in a row at which reward and held-out judge have diverged

Row = Mapping[str, object]  # of metrics.jsonl


@dataclass(frozen=True)
class Limit:
    """A factor on a column's first value, and what it means to be beyond it."""

    factor: float
    meaning: str


@dataclass(frozen=True)
class Rule:
    """When a column rings.

    what: the column, in words. falls, rises: its limits; None where that direction is no sign of hacking.
    of_odds: factors are of x / (1 − x), for a column that lies near 1.
    """

    column: str
    what: str
    falls: Limit | None
    rises: Limit | None
    of_odds: bool = False

    def scale(self, values: np.ndarray) -> np.ndarray:
        """Put values on the scale on which a factor is a distance."""
        return np.log(values + FLOOR) - (np.log(1 - values + FLOOR) if self.of_odds else 0.0)

    def limits(self) -> tuple[float, float]:
        """Return how far the column may fall, ≤ 0, and rise on that scale."""
        return (
            -math.inf if self.falls is None else math.log(self.falls.factor),
            math.inf if self.rises is None else math.log(self.rises.factor),
        )


RULES = (
    Rule("pictures/dark_frac", "the share of dark pixels", None, Limit(2.0, "pictures turn dark")),
    Rule(
        "pictures/edge_density",
        "the share of pixels on edges",
        Limit(0.2, "pictures become empty or blurred"),
        Limit(2.0, "pictures fill with noise or clutter"),
    ),
    Rule(
        "pictures/colour_entropy",
        "the entropy of colours",
        Limit(0.5, "pictures lose their colours"),
        Limit(1.3, "pictures fill with more things than before, or with noise"),
    ),
    Rule(
        "pictures/brightness",
        "the brightness",
        Limit(0.25, "pictures turn black"),
        Limit(4.0, "pictures turn white"),
        of_odds=True,
    ),
    Rule(
        "pictures/saturation",
        "the saturation",
        Limit(0.25, "pictures turn grey"),
        Limit(2.0, "pictures become gaudy"),
    ),
    Rule("pictures/diversity", "the difference between a group's pictures", Limit(0.4, "they become copies"), None),
    Rule(
        "reward_group_std",
        "the spread of rewards within groups",
        Limit(0.3, "the reward hardly tells pictures apart any more"),
        None,
    ),
)


@dataclass(frozen=True)
class Alarm:
    """A rule that rings at the latest phase.

    since: the optimiser step from which on it rang without a pause. first, now: the medians that are compared.
    """

    column: str
    since: int
    first: float
    now: float
    sentence: str


class Alarms:
    """The alarms of a run that is under way, which see all its rows.

    run_folder: for the line that says where to look.
    """

    def __init__(self, rows: Sequence[Row], run_folder: Path) -> None:
        self.rows, self.run_folder = list(rows), run_folder

    @staticmethod
    def of(run_folder: Path) -> "Alarms":
        """Begin after the rows that the run folder has.

        They are those up to the checkpoint that the run goes on from.
        """
        return Alarms(MetricsLog.read(run_folder / "metrics.jsonl"), run_folder)

    def update(self, display: Display, row: Row) -> dict[str, float]:
        """Take in a phase's row; print a line for each alarm that begins to ring.

        Returns a column of metrics.jsonl: how many ring.
        """
        self.rows.append(row)
        ringing = alarms(self.rows)
        for alarm in ringing:
            display.warn(
                f"alarm {alarm.column}",
                f"alarm since step {alarm.since}: {alarm.sentence}. Look at the pictures: thinkdraw report {self.run_folder}",
            )
        return {"alarms": float(len(ringing))}


def alarms(rows: Sequence[Row]) -> list[Alarm]:
    """Find the alarms that ring after these rows of metrics.jsonl, a run's first on."""
    ringing = [alarm for rule in RULES if (alarm := _ringing(rule, rows))]
    return ringing + [alarm for alarm in [_diverged(rows)] if alarm]


def changes(rule: Rule, rows: Sequence[Row]) -> tuple[np.ndarray, np.ndarray, float]:
    """Compare each LATEST phases in a row with the FIRST ones.

    Returns the step at which each comparison ends, the change on the rule's scale, and what the column's noise explains.
    """
    steps, values = _known(rows, rule.column)
    if len(values) < FIRST + LATEST:
        return np.zeros(0, int), np.zeros(0), 0.0
    scaled = rule.scale(values)
    windows = np.lib.stride_tricks.sliding_window_view(scaled[FIRST:], LATEST)
    # Noise from successive differences, which a slow drift hardly touches: the median of |N(0, 2σ²)| is 0.954 σ.
    noise = NOISE * float(np.median(np.abs(np.diff(scaled)))) / 0.954
    return steps[FIRST + LATEST - 1 :], np.median(windows, axis=1) - np.median(scaled[:FIRST]), noise


def _ringing(rule: Rule, rows: Sequence[Row]) -> Alarm | None:
    steps, change, noise = changes(rule, rows)
    low, high = rule.limits()
    rings = (change < min(low, -noise)) | (change > max(high, noise))
    if not len(rings) or not rings[-1]:
        return None
    quiet = np.flatnonzero(~rings)
    since = int(steps[int(quiet[-1]) + 1 if len(quiet) else 0])
    _, values = _known(rows, rule.column)
    first, now = float(np.median(values[:FIRST])), float(np.median(values[-LATEST:]))
    moved, limit = ("fell", rule.falls) if change[-1] < 0 else ("rose", rule.rises)
    meaning = f": {limit.meaning}" if limit else ""
    sentence = f"{rule.what} {moved} from {first:.3g} to {now:.3g}{meaning}"
    return Alarm(rule.column, since, first, now, sentence)


def _diverged(rows: Sequence[Row]) -> Alarm | None:
    """Ring if reward and held-out judge have diverged for long enough.

    Column `parted` counts validations in a row, see `phase/monitor.py`.
    """
    steps, counts = _known(rows, "parted")
    if not len(counts) or counts[-1] < DIVERGED:
        return None
    since = int(steps[max(0, len(steps) - int(counts[-1]) + DIVERGED - 1)])
    name = next(key for row in reversed(rows) for key in row if key.startswith("monitor/"))
    peak, now = max(_known(rows, name)[1]), _known(rows, name)[1][-1]
    sentence = (
        f"{name.removeprefix('monitor/')}, which is not optimised, fell from {peak:.3g} to {now:.3g} while the reward "
        "did not: the policy may be exploiting mistakes of the judge"
    )
    return Alarm(name, since, float(peak), float(now), sentence)


def _known(rows: Sequence[Row], column: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the steps at which a column has a value, and these values."""
    known = [
        (step, value)
        for row in rows
        if isinstance(value := row.get(column), int | float) and isinstance(step := row.get("step"), int | float)
    ]
    return np.array([step for step, _ in known]), np.array([float(value) for _, value in known])
