"""The page's sentences and numbers: the headline, what was run, and how scores are written."""

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from thinkdraw.charts.axes import short
from thinkdraw.report.collect import Material, Run
from thinkdraw.report.files import mapping, number, text
from thinkdraw.report.scores import Measure, Stage, changes
from thinkdraw.runtime.json_types import JsonMapping

MAX_CHARACTERS = 1_200
"""A longer thought is cut on the page."""

# The settings that decide what a number means, by the last part of their names.
_SETTINGS = {
    *("objective", "name", "guidance_in_loss", "group_size", "beta", "kl", "epsilon", "epsilon_low", "epsilon_high"),
    *("thought", "max_thought_tokens", "temperature", "top_k", "top_p", "guidance_scale"),
    *("prompts_per_phase", "prompts_per_step", "batch_size", "updates_per_phase", "steps", "phases", "learning_rate"),
    *("precision", "seed"),
}


def headline(material: Material) -> str:
    """The result in one sentence."""
    stages = [stage for stage in material.stages if stage.overall.known]
    if stages:
        last = stages[-1]
        sentence = f"{last.name} {score(last.overall)}"
        difference = next((d for d in material.differences if d.later == last.key and d.overall.known), None)
        if difference is not None:
            before = next(stage.name for stage in material.stages if stage.key == difference.earlier)
            unclear = (
                "" if difference.overall.is_clear or not difference.overall.has_interval else ": no clear difference"
            )
            sentence += f", {points(difference.overall, unit=True, over=before)}{unclear}"
        return sentence
    for run in reversed(material.runs):
        for metric, words in (("reward_mean", "mean reward"), ("loss", "loss"), ("image_nats", "image loss")):
            values = np.array([v for row in run.metrics if (v := number(row.get(metric))) == v])
            if len(values):
                tenth = max(1, len(values) // 10)
                start, end = short(float(values[:tenth].mean())), short(float(values[-tenth:].mean()))
                return f"{run.title}: {words} from {start} to {end} in {short(run.last('step'))} steps"
    counted = next((run for run in reversed(material.runs) if run.last("step") > 0), None)
    return f"{counted.title}: {short(counted.last('step'))} steps" if counted else "Nothing was measured yet"


def lead(material: Material, stages: Sequence[Stage]) -> str:
    """What the numbers of the headline are made of."""
    if not stages:
        return "This folder has no evaluation, so the page shows how training went, not what it gained."
    last = stages[-1]
    parts = []
    if last.overall.pictures and last.overall.prompts:
        parts.append(f"{last.overall.pictures:,} pictures of {last.overall.prompts:,} prompts per stage.")
    if last.overall.has_interval:
        parts.append("Brackets are 95 % intervals; differences are paired by prompt.")
    if missing := sum(stage.no_verdict for stage in stages):
        were = "picture has" if missing == 1 else "pictures have"
        parts.append(
            f"{missing:,} {were} no verdict and {'is' if missing == 1 else 'are'} left out, not counted as wrong."
        )
    return " ".join(parts)


def change_sentence(material: Material) -> str:
    """What the last stage changed among the prompts shown side by side."""
    if len(material.stages) < 2:
        return ""
    earlier, later = (stage.name for stage in material.stages[-2:])
    counts = changes(material.comparisons, earlier, later)
    if not counts:
        return ""
    fixed, broken, same = (counts[key] for key in ("fixed", "broken", "same"))
    return f"From {earlier} to {later}, {fixed} became right, {broken} became wrong and {same} stayed as they were."


def facts(material: Material) -> list[tuple[str, str]]:
    """What was run, where, and what it cost."""
    env = material.environment
    cores, ram = text(env.get("cores")), number(env.get("ram_gb"))
    hardware = [text(env.get("accelerator") or env.get("cpu")), f"{cores} cores" if cores else ""]
    hardware.append(f"{ram:.0f} GB memory" if ram == ram else "")
    versions = [f"{name} {version}" for name, version in mapping(env.get("versions")).items() if version]
    runs = [
        f"{run.title} {short(steps)} steps" if (steps := run.last("step")) == steps else run.title
        for run in material.runs
    ]
    peak, pictures = material.peak_memory_gb, [run.last("pictures_sampled") for run in material.runs]
    sampled = sum(count for count in pictures if count == count)
    rows = [
        ("Runs", ", ".join(runs)),
        ("Time", duration(material.seconds)),
        ("Peak memory", f"{peak:.1f} GB" if peak == peak else ""),
        ("Seed", material.seed),
        ("Pictures sampled in training", f"{sampled:,.0f}" if sampled else ""),
        ("Hardware", ", ".join(part for part in hardware if part)),
        ("Versions", ", ".join([f"Python {env['python']}", *versions] if "python" in env else versions)),
        ("Commit", text(env.get("git_commit"))[:12]),
    ]
    return [(name, value) for name, value in rows if value]


def settings(run: Run) -> list[tuple[str, str]]:
    """The settings of a run that decide what its numbers mean."""
    leaves = [(name, value) for name, value in _leaves(run.config) if value is not None and text(value) != ""]
    return [(name, text(value)) for name, value in leaves if name.rpartition(".")[2] in _SETTINGS][:24]


def _leaves(config: JsonMapping, prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{name}.")
        elif not isinstance(value, list):
            yield name, value


def score(measure: Measure) -> str:
    """ "0.62 [0.59, 0.65]"."""
    if not measure.known:
        return "–"
    return f"{measure.value:.2f}" + (f" [{measure.low:.2f}, {measure.high:.2f}]" if measure.has_interval else "")


def points(measure: Measure, unit: bool = False, over: str = "") -> str:
    """A difference of scores in points: "+9.1 points over SFT [6.0, 12.3]"."""
    if not measure.known:
        return "–"
    words = f"{100 * measure.value:+.1f}" + (" points" if unit else "") + (f" over {over}" if over else "")
    interval = f" [{100 * measure.low:.1f}, {100 * measure.high:.1f}]" if measure.has_interval else ""
    return (words + interval).replace("-", "−")


def cut(words: str) -> str:
    return words if len(words) <= MAX_CHARACTERS else words[:MAX_CHARACTERS] + " …"


def task_name(tag: str) -> str:
    """ "single_object" → "single object"."""
    return tag.replace("_", " ")


def duration(seconds: float) -> str:
    if not math.isfinite(seconds):
        return ""
    hours, minutes, rest = int(seconds // 3600), int(seconds % 3600 // 60), int(seconds % 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{seconds:.0f} s"
