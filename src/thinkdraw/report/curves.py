"""Which metrics of a run become which chart, and what a healthy curve looks like."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from thinkdraw.charts.lines import Plot, Series, line_plot, stacked_plot
from thinkdraw.report.collect import Run
from thinkdraw.report.files import number

REWARD_PART, MONITOR = "reward/", "monitor/"


@dataclass(frozen=True)
class Curve:
    """One chart: metrics → their labels, drawn where at least one has values.

    needs: drawn only if this metric is not always zero.  quiet_at_zero: left out if nothing but zeros was measured.
    total: the metrics are totals since the run began, of which the growth from row to row is drawn.
    """

    title: str
    metrics: Mapping[str, str]
    healthy: str
    unit: str = ""
    needs: str = ""
    log: bool = False
    stacked: bool = False
    quiet_at_zero: bool = False
    total: bool = False


CURVES = (
    Curve(
        "Reward",
        {"reward_mean": "mean"},
        "Climbs, then flattens. A part that falls while the mean climbs is being traded away.",
        needs="reward_mean",
    ),
    Curve(
        "Validation score",
        {"validation_score": "score"},
        "Follows the reward upwards. Reward that rises without it, or without a monitor, is learned from the judge, not from "
        "the task.",
    ),
    Curve(
        "Entropy",
        {"entropy_text": "thought", "entropy_image": "image"},
        "Sinks slowly and levels off. A fall towards zero means that the samples of a prompt become copies.",
        unit="nats per token",
    ),
    Curve(
        "Entropy coefficient",
        {"entropy_coef_text": "thought", "entropy_coef_image": "image"},
        "Moves around zero within its cap. One that stays at the cap has lost control of the entropy.",
        quiet_at_zero=True,
    ),
    Curve(
        "KL to the reference",
        {"kl_text": "thought", "kl_image": "image"},
        "Rises from zero and bends. A straight or accelerating rise says that the policy is leaving the reference.",
        unit="nats per token",
        quiet_at_zero=True,
    ),
    Curve(
        "Ratio at the first update",
        {"ratio_max_deviation": "largest |ratio − 1|"},
        "Flat at rounding error; zero is drawn at 10⁻⁹. More: tokens are not scored as they were sampled.",
        log=True,
    ),
    Curve(
        "Clipped tokens",
        {"clip_frac_text": "thought", "clip_frac_image": "image"},
        "A few per cent at most. Much more asks for a smaller learning rate or fewer updates per phase.",
        unit="share",
        quiet_at_zero=True,
    ),
    Curve(
        "Thought length",
        {"thought_tokens_mean": "mean"},
        "Changes gently and stays below the budget. A collapse to a few words ends the thinking.",
        unit="tokens",
    ),
    Curve(
        "Shares to watch",
        {
            "zero_variance_frac": "no spread in group",
            "thought_forced_frac": "thought cut",
            "no_verdict_frac": "no verdict",
        },
        "All low. Groups without spread teach nothing; their share grows as prompts are solved or given up.",
        unit="share",
    ),
    Curve(
        "Loss",
        {"loss": "total", "text_nats": "thought", "image_nats": "image"},
        "Falls quickly, then slowly. An end that still falls steeply asks for more steps.",
        unit="nats per token",
        needs="text_nats",
    ),
    Curve(
        "Gradient norm",
        {"grad_norm": "norm", "gradient_norm": "norm"},
        "Steady, with rare spikes. Growth over many steps announces a divergence.",
    ),
    Curve(
        "Time per phase",
        {"seconds_sampling": "sample", "seconds_judging": "judge", "seconds_learning": "update"},
        "Even. A part that grows over the run is worth a look.",
        unit="seconds",
        stacked=True,
        total=True,
        needs="pictures_sampled",
    ),
    Curve(
        "Throughput", {"tokens_per_s": "tokens"}, "Even. A drop means that the machine was shared.", unit="per second"
    ),
)


@dataclass(frozen=True)
class Chart:
    """A chart with its words, ready for the page. name: unique on the page."""

    name: str
    title: str
    unit: str
    healthy: str
    plot: Plot


def charts_of(run: Run, prefix: str) -> list[Chart]:
    """The charts that a run has values for."""
    if not run.metrics:
        return []
    steps = np.array([_step(row, i) for i, row in enumerate(run.metrics)])
    charts = []
    for i, curve in enumerate(CURVES):
        series = _series(curve, run.metrics)
        if not series or (curve.needs and not np.nan_to_num(_values(run.metrics, curve.needs)).any()):
            continue
        if curve.quiet_at_zero and all(np.nanmax(np.abs(s.values)) == 0 for s in series):
            continue
        name, title = f"{prefix}-{i}", f"{run.title}: {curve.title.lower()}"
        if curve.stacked:
            plot = stacked_plot(name, title, steps, series)
        else:
            plot = line_plot(name, title, steps, series, log=curve.log)
        charts.append(Chart(name, curve.title, curve.unit, curve.healthy, plot))
    return charts


def _series(curve: Curve, rows: Sequence[Mapping[str, object]]) -> list[Series]:
    metrics = dict(curve.metrics)
    if "reward_mean" in metrics:
        parts = dict.fromkeys(key for row in rows for key in row if key.startswith(REWARD_PART))
        if len(parts) > 1:  # a single part is the mean
            metrics |= {key: key.removeprefix(REWARD_PART) for key in parts}
    if "validation_score" in metrics:
        watched = dict.fromkeys(key for row in rows for key in row if key.startswith(MONITOR))
        metrics |= {key: f"{key.removeprefix(MONITOR)} (not optimised)" for key in watched}
    found = [(label, values) for key, label in metrics.items() if _has_values(values := _values(rows, key))]
    if curve.total:
        found = [(label, np.diff(values, prepend=0.0)) for label, values in found]
    return [Series(label, values, i % 6 + 1) for i, (label, values) in enumerate(found)]


def _values(rows: Sequence[Mapping[str, object]], key: str) -> np.ndarray:
    return np.array([number(row.get(key)) for row in rows])


def _has_values(values: np.ndarray) -> bool:
    return bool(np.isfinite(values).any())


def _step(row: Mapping[str, object], index: int) -> float:
    known = (value for key in ("step", "phase") if (value := number(row.get(key))) == value)
    return next(known, float(index))
