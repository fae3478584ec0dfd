"""The page's sentences: the headline, what was run, and how scores are written."""

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from thinkdraw.charts.axes import short
from thinkdraw.report.collect import ReportData, Run
from thinkdraw.report.files import mapping, number, text
from thinkdraw.report.scores import Difference, Measure, Stage, changes
from thinkdraw.runtime.json_types import JsonMapping

MAX_CHARACTERS = 1_200
"""A longer thought is cut on the page."""

# The settings that decide what a number means, by the last component of their keys.
_SETTINGS = {
    *("objective", "name", "guidance_in_loss", "group_size", "beta", "kl", "epsilon", "epsilon_low", "epsilon_high"),
    *("thought", "max_thought_tokens", "temperature", "top_k", "top_p", "guidance_scale"),
    *("prompts_per_phase", "prompts_per_step", "batch_size", "updates_per_phase", "steps", "phases", "learning_rate"),
    *("precision", "seed"),
}


def headline(report: ReportData) -> str:
    """Say the result in one sentence: what the score is of, and what was gained."""
    stages = [stage for stage in report.stages if stage.overall.known]
    if stages:
        last = stages[-1]
        value = last.overall.value
        sentence = (
            f"{last.name}: {100 * value:.0f} % of {last.split} prompts drawn right"
            if last.is_share
            else (f"{last.name}: score {value:.2f}")
        )
        difference = _last_difference(report, last)
        if difference is not None:
            earlier = next(stage.name for stage in report.stages if stage.key == difference.earlier)
            gain = difference.overall
            if gain.has_interval and not gain.is_clear:
                return f"{sentence}, no clear difference to {earlier}"
            more = "more" if gain.value >= 0 else "fewer" if last.is_share else "less"
            sentence += f", {abs(100 * gain.value):.1f} points {more} than {earlier}"
        return sentence
    for run in reversed(report.runs):
        for metric, words in (("reward_mean", "mean reward"), ("loss", "loss"), ("image_nats", "image loss")):
            values = np.array([v for row in run.metrics if (v := number(row.get(metric))) == v])
            if len(values):
                tenth = max(1, len(values) // 10)
                start, end = short(float(values[:tenth].mean())), short(float(values[-tenth:].mean()))
                return f"{run.title}: {words} from {start} to {end} in {short(run.last('step'))} steps"
    counted = next((run for run in reversed(report.runs) if run.last("step") > 0), None)
    return f"{counted.title}: {short(counted.last('step'))} steps" if counted else "Nothing was measured yet"


def _last_difference(report: ReportData, last: Stage) -> Difference | None:
    return next((d for d in report.differences if d.later == last.key and d.overall.known), None)


def lead(report: ReportData, stages: Sequence[Stage]) -> str:
    """Say what the numbers of the headline are made of, and how certain they are."""
    if not stages:
        return "This folder has no evaluation, so the page shows how training went, not what it gained."
    last = stages[-1]
    sentences = []
    if last.overall.pictures and last.overall.prompts:
        sentences.append(
            f"Every stage drew {last.overall.pictures:,} pictures of {last.overall.prompts:,} {last.split} prompts."
        )
    if last.overall.has_interval:
        certainty = f"95 % intervals: score {_range(last.overall, 100 if last.is_share else 1)}" + " %" * last.is_share
        difference = _last_difference(report, last)
        if difference is not None and difference.overall.has_interval:
            certainty += f", difference {_range(difference.overall, 100)} points"
        sentences.append(f"{certainty}.")
    if missing := sum(stage.no_verdict for stage in stages):
        were = "picture has" if missing == 1 else "pictures have"
        sentences.append(
            f"{missing:,} {were} no verdict and {'is' if missing == 1 else 'are'} left out, not counted as wrong."
        )
    return " ".join(sentences)


def _range(measure: Measure, factor: int) -> str:
    if not measure.has_interval:
        return "not known"
    digits = 0 if factor == 100 and measure.low >= 0.1 else 1 if factor == 100 else 2
    return f"{factor * measure.low:.{digits}f} to {factor * measure.high:.{digits}f}".replace("-", "−")


def stage_sentence(stages: Sequence[Stage]) -> str:
    """Say what the stages of a quickstart are."""
    keys = {stage.key for stage in stages}
    meanings = {
        "base": "Base is the model before this training",
        "sft": "SFT is the model after supervised fine-tuning on thoughts and pictures",
        "rl": "RL is the model after reinforcement learning",
    }
    clauses = [meaning for key, meaning in meanings.items() if key in keys]
    return f"{'; '.join(clauses)}." if clauses else ""


def change_sentence(report: ReportData) -> str:
    """Say what the last stage changed among the prompts shown side by side."""
    if len(report.stages) < 2:
        return ""
    earlier, later = (stage.name for stage in report.stages[-2:])
    counts = changes(report.comparisons, earlier, later)
    if not counts:
        return ""
    fixed, broken, same = (counts[key] for key in ("fixed", "broken", "same"))
    return f"From {earlier} to {later}, {fixed} became right, {broken} became wrong and {same} kept their verdict."


def facts(report: ReportData) -> list[tuple[str, str]]:
    """List what was run, where, and what it cost."""
    env = report.environment
    cores, ram = text(env.get("cores")), number(env.get("ram_gb"))
    hardware = [text(env.get("accelerator") or env.get("cpu")), f"{cores} cores" if cores else ""]
    hardware.append(f"{ram:.0f} GB memory" if ram == ram else "")
    versions = [f"{name} {version}" for name, version in mapping(env.get("versions")).items() if version]
    runs = [
        f"{run.title} {short(steps)} steps" if (steps := run.last("step")) == steps else run.title
        for run in report.runs
    ]
    peak, pictures = report.peak_memory_gb, [run.last("pictures_sampled") for run in report.runs]
    sampled = sum(count for count in pictures if count == count)
    rows = [
        ("Runs", ", ".join(runs)),
        ("Time", duration(report.seconds)),
        ("Peak memory", f"{peak:.1f} GB" if peak == peak else ""),
        ("Seed", report.seed),
        ("Pictures sampled in training", f"{sampled:,.0f}" if sampled else ""),
        ("Hardware", ", ".join(item for item in hardware if item)),
        ("Versions", ", ".join([f"Python {env['python']}", *versions] if "python" in env else versions)),
        ("Commit of thinkdraw", text(env.get("git_commit"))[:12]),
    ]
    return [(name, value) for name, value in rows if value]


def settings(run: Run) -> list[tuple[str, str]]:
    """List the settings of a run that decide what its numbers mean."""
    leaves = [(name, value) for name, value in _leaves(run.config) if value is not None and text(value) != ""]
    return [(name, text(value)) for name, value in leaves if name.rpartition(".")[2] in _SETTINGS][:24]


def _leaves(config: JsonMapping, prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{name}.")
        elif not isinstance(value, list):
            yield name, value


def cut(words: str) -> str:
    return words if len(words) <= MAX_CHARACTERS else words[:MAX_CHARACTERS] + " …"


_TASKS = {"color_attr": "colour attribution", "colors": "colours"}
_MEASURES = {
    "understanding": {
        "overall": "all questions",
        "accuracy": "all questions",
        "auroc": "yes ranked above no (AUROC)",
        "yes_frac": "answered yes (share)",
        "per_type exists": "is it there?",
        "exists": "is it there?",
        "per_type color": "colour",
        "per_type relation": "position",
        "blanked accuracy": "blank picture (chance: 0.5)",
        "blanked auroc": "blank picture, AUROC (chance: 0.5)",
    },
    "diversity": {"overall": "distinct pictures per prompt (Vendi score)"},
    "thought_precision": {"all": "all statements", "thing": "objects", "place": "positions"},
}


def task_name(tag: str) -> str:
    """Write a task's tag for people: "single_object" → "single object"."""
    return _TASKS.get(tag, tag.replace("_", " "))


def measure_name(table: str, name: str) -> str:
    """Write a measure's key for people, as the row label of its table."""
    return _MEASURES[table].get(name) or task_name(name.removeprefix("per_type "))


def duration(seconds: float) -> str:
    if not math.isfinite(seconds):
        return ""
    hours, minutes, rest = int(seconds // 3600), int(seconds % 3600 // 60), int(seconds % 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{seconds:.0f} s"
