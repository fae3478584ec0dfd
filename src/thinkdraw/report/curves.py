"""Which metrics become which chart, and what a healthy curve looks like."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from thinkdraw.charts.lines import Plot, Series, line_plot, stacked_plot
from thinkdraw.recipes.phase.hacking.alarms import alarms
from thinkdraw.report.collect import Run
from thinkdraw.report.files import number

REWARD_PART, MONITOR = "reward/", "monitor/"


@dataclass(frozen=True)
class Curve:
    """One chart of some metrics, each with its label; drawn where one has values.

    healthy: the caption, on what a healthy curve looks like. needs: drawn only if this metric is not always zero.
    hidden_at_zero: left out if only zeros were measured. is_cumulative: the metrics are totals since the run began; the
    chart shows their growth from row to row.
    """

    title: str
    metrics: Mapping[str, str]
    healthy: str
    unit: str = ""
    needs: str = ""
    log: bool = False
    stacked: bool = False
    hidden_at_zero: bool = False
    is_cumulative: bool = False


CURVES = (
    Curve(
        "Reward",
        {"reward_mean": "mean"},
        "Healthy: climbs, then levels off. A part that falls while the mean climbs is given up for the other parts.",
        needs="reward_mean",
    ),
    Curve(
        "Validation score",
        {"validation_score": "score"},
        "Healthy: climbs with the reward. If the reward climbs alone, without this score or a monitor's, the policy exploits "
        "its judge instead of learning the task.",
    ),
    Curve(
        "Entropy",
        {"entropy_text": "thought", "entropy_image": "image"},
        "Healthy: sinks slowly, then levels off. Near zero, the samples of a prompt are copies of each other.",
        unit="nats per token",
    ),
    Curve(
        "Entropy coefficient",
        {"entropy_coef_text": "thought", "entropy_coef_image": "image"},
        "Healthy: moves around zero, within its cap. If it stays at the cap, it no longer controls the entropy.",
        hidden_at_zero=True,
    ),
    Curve(
        "KL to the reference",
        {"kl_text": "thought", "kl_image": "image"},
        "Healthy: rises from zero, then levels off. If it rises straight or ever faster, the policy drifts away from the "
        "reference.",
        unit="nats per token",
        hidden_at_zero=True,
    ),
    Curve(
        "Ratio at the first update",
        {"ratio_max_deviation": "largest |ratio − 1|"},
        "How much a token's probability in training differs from that in sampling, at worst. Healthy: below 10⁻⁴ in fp32; "
        "about 0.1 to 1 in bf16, which rounds coarsely. More means that tokens are not scored as they were sampled. "
        "Zero is drawn at 10⁻⁹.",
        log=True,
    ),
    Curve(
        "Clipped tokens",
        {"clip_frac_text": "thought", "clip_frac_image": "image"},
        "Healthy: a few per cent at most. If it is much more, use a smaller learning rate or fewer updates per phase.",
        unit="share",
        hidden_at_zero=True,
    ),
    Curve(
        "Thought length",
        {"thought_tokens_mean": "mean"},
        "Healthy: changes gently and stays below the budget. A fall to a few words means that the policy stops thinking.",
        unit="tokens",
    ),
    Curve(
        "What training loses",
        {
            "zero_variance_frac": "groups of equal rewards",
            "thought_forced_frac": "thoughts cut off",
            "no_verdict_frac": "no verdict",
        },
        "Healthy: all low. A group of equal rewards teaches nothing; the share of such groups grows as prompts are solved, or "
        "prove too hard.",
        unit="share",
    ),
    Curve(
        "Loss",
        {"loss": "total", "text_nats": "thought", "image_nats": "image"},
        "Healthy: falls, then flattens; flat from the start where the model knew the texts already, as the lab's does. "
        "If it still falls steeply at the end, train for more steps.",
        unit="nats per token",
        needs="text_nats",
    ),
    Curve(
        "Gradient norm",
        {"grad_norm": "norm", "gradient_norm": "norm"},
        "Healthy: steady, with rare spikes. If it grows over many steps, training is about to diverge.",
    ),
    Curve(
        "Time per phase",
        {"seconds_sampling": "sampling", "seconds_judging": "judging", "seconds_learning": "learning"},
        "Healthy: even. Other work on the machine shows as bumps in all three; find out why if one of them keeps growing.",
        unit="seconds",
        stacked=True,
        is_cumulative=True,
        needs="pictures_sampled",
    ),
    Curve(
        "Throughput",
        {"tokens_per_s": "tokens"},
        "Healthy: even. A drop usually means that other work ran on the machine.",
        unit="per second",
    ),
)


HELD_OUT = "Reward and held-out judge"
# Measured on pixels and rewards, without asking a judge; `recipes/phase/hacking` says how, and when an alarm rings.
HACKING_CURVES = (
    Curve(
        HELD_OUT,
        {"validation_score": "reward"},
        "On fixed prompts. Healthy: both climb. If the reward climbs and the judge that is not optimised falls, the policy "
        "exploits mistakes of its reward.",
    ),
    Curve(
        "Dark pixels",
        {"pictures/dark_frac": "dark"},
        "Healthy: changes slowly. A steep rise: pictures turn black.",
        unit="share",
    ),
    Curve(
        "Edges",
        {"pictures/edge_density": "on an edge"},
        "Healthy: sinks as pictures become tidy. Near zero they are empty; a steep rise is noise or clutter.",
        unit="share of pixels",
    ),
    Curve(
        "Colours",
        {"pictures/colour_entropy": "entropy"},
        "Healthy: level, or sinks a little. Near zero all is one colour; a rise means more things, or noise.",
        unit="bits of 6",
    ),
    Curve(
        "Brightness",
        {"pictures/brightness": "mean"},
        "Healthy: level. Pictures that a judge likes for their light alone move it to an end.",
        unit="0 to 1",
    ),
    Curve(
        "Saturation",
        {"pictures/saturation": "mean"},
        "Healthy: changes slowly. A steep rise is gaudy, near zero is grey.",
        unit="0 to 1",
    ),
    Curve(
        "Diversity in a group",
        {"pictures/diversity": "difference between pictures"},
        "Healthy: sinks as the policy becomes sure. Near zero, the pictures of a prompt are copies.",
        unit="0 to 1",
    ),
    Curve(
        "Spread of rewards in a group",
        {"reward_group_std": "standard deviation"},
        "Healthy: above zero. Near zero, the reward no longer tells pictures apart.",
    ),
)


@dataclass(frozen=True)
class Chart:
    """A chart with its words, ready for the page.

    name: unique on the page. rings: the step since which its alarm rings, None where it is quiet.
    """

    name: str
    title: str
    unit: str
    healthy: str
    plot: Plot
    rings: int | None = None


@dataclass(frozen=True)
class HackingSigns:
    """What a run shows of reward hacking: charts, and a sentence for each alarm."""

    charts: Sequence[Chart]
    sentences: Sequence[str]
    has_held_out_judge: bool


def charts_of(run: Run, prefix: str) -> list[Chart]:
    """Draw the charts of how training went, for which a run has values."""
    return _draw(CURVES, run, prefix, {})


def hacking_signs(run: Run, prefix: str) -> HackingSigns:
    """Draw the charts of reward hacking, and find the alarms at the run's last row."""
    ringing = alarms(run.metrics)
    has_judge = any(key.startswith(MONITOR) for row in run.metrics for key in row)
    curves = [curve for curve in HACKING_CURVES if curve.title != HELD_OUT or has_judge]
    since = {"validation_score" if a.column.startswith(MONITOR) else a.column: a.since for a in ringing}
    sentences = [f"Since step {alarm.since}: {alarm.sentence}." for alarm in ringing]
    return HackingSigns(_draw(curves, run, f"{prefix}-hacking", since), sentences, has_judge)


def _draw(curves: Sequence[Curve], run: Run, prefix: str, since: Mapping[str, int]) -> list[Chart]:
    """Draw curves. since: metric → the step from which on its alarm rings."""
    if not run.metrics:
        return []
    steps = np.array([_step(row, i) for i, row in enumerate(run.metrics)])
    charts = []
    for i, curve in enumerate(curves):
        series = _series(curve, run.metrics)
        if not series or (curve.needs and not np.nan_to_num(_values(run.metrics, curve.needs)).any()):
            continue
        if curve.hidden_at_zero and all(np.nanmax(np.abs(s.values)) == 0 for s in series):
            continue
        name, title = f"{prefix}-{i}", f"{run.title}: {curve.title.lower()}"
        if curve.stacked:
            plot = stacked_plot(name, title, steps, series)
        else:
            plot = line_plot(name, title, steps, series, log=curve.log)
        rings = next((since[metric] for metric in curve.metrics if metric in since), None)
        charts.append(Chart(name, curve.title, curve.unit, curve.healthy, plot, rings))
    return charts


def _series(curve: Curve, rows: Sequence[Mapping[str, object]]) -> list[Series]:
    metrics = dict(curve.metrics)
    if "reward_mean" in metrics:
        parts = dict.fromkeys(key for row in rows for key in row if key.startswith(REWARD_PART))
        if len(parts) > 1:  # a single part would repeat the mean
            metrics |= {key: key.removeprefix(REWARD_PART) for key in parts}
    if "validation_score" in metrics:
        monitors = dict.fromkeys(key for row in rows for key in row if key.startswith(MONITOR))
        metrics |= {key: f"{key.removeprefix(MONITOR)} (not optimised)" for key in monitors}
    lines = [(label, values) for key, label in metrics.items() if _has_values(values := _values(rows, key))]
    if curve.is_cumulative:
        lines = [(label, np.diff(values, prepend=0.0)) for label, values in lines]
    return [Series(label, values, i % 6 + 1) for i, (label, values) in enumerate(lines)]


def _values(rows: Sequence[Mapping[str, object]], key: str) -> np.ndarray:
    return np.array([number(row.get(key)) for row in rows])


def _has_values(values: np.ndarray) -> bool:
    return bool(np.isfinite(values).any())


def _step(row: Mapping[str, object], index: int) -> float:
    known = (value for key in ("step", "phase") if (value := number(row.get(key))) == value)
    return next(known, float(index))
