"""The page: what was collected, put into words, tables and the template.

Prompts and thoughts are text that a policy or a stranger wrote. They reach the page through jinja2's autoescape or as JSON
that the script puts in place as text; the content security policy lets no other script run and nothing be fetched.
"""

import base64
import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from thinkdraw.report.charts import interval_plot, short
from thinkdraw.report.collect import Group, Material, Run
from thinkdraw.report.curves import charts_of
from thinkdraw.report.files import mapping, number, text
from thinkdraw.report.scores import Difference, Measure, Stage, changes

MAX_CHARACTERS = 1_200
"""A longer thought is cut on the page."""

_SHOWN_AT_ONCE = 6  # comparisons before the fold
_SETTINGS = (
    "objective name thought max_thought_tokens temperature top_k top_p guidance_scale guidance_in_loss group_size "
    "prompts_per_phase prompts_per_step num_prompts batch_size updates_per_phase steps num_steps phases learning_rate "
    "lr beta kl epsilon clip precision dtype seed"
).split()


def render(material: Material) -> str:
    """The whole page as HTML."""
    environment = Environment(
        loader=PackageLoader("thinkdraw.report"),
        autoescape=True,  # for every template: the names end in .j2
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"points": points, "score": score, "cut": cut, "task": task_name}
    script = Markup(environment.get_template("script.js.j2").render())  # a constant of the package
    curves = [(run, charts_of(run, f"run{i}")) for i, run in enumerate(material.runs)]
    stages = [stage for stage in material.stages if stage.overall.known or stage.per_task]
    groups = [group for run in material.runs for group in run.groups]
    hover = {chart.name: chart.plot.hover for _, charts in curves for chart in charts}
    return environment.get_template("page.html.j2").render(
        material=material,
        headline=headline(material),
        lead=lead(material, stages),
        facts=facts(material),
        settings=[(run, settings(run)) for run in material.runs],
        stages=stages,
        table=score_table(stages, material.differences),
        dots=dot_plot(stages),
        curves=curves,
        changes=changes(material.comparisons),
        at_once=material.comparisons[:_SHOWN_AT_ONCE],
        folded=material.comparisons[_SHOWN_AT_ONCE:],
        others=other_measures(material.stages),
        has_groups=bool(groups),
        data=embed_json({"charts": hover, "groups": [group_data(group) for group in groups]}),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def embed_json(value: Any) -> Markup:
    """JSON that is safe inside a <script> element: nothing in it can close the element or open a comment."""
    escapes = {ord(char): f"\\u{ord(char):04x}" for char in "<>&"}
    return Markup(json.dumps(value, allow_nan=False, separators=(",", ":")).translate(escapes))


def headline(material: Material) -> str:
    """The result in one sentence."""
    stages = [stage for stage in material.stages if stage.overall.known]
    if stages:
        last = stages[-1]
        sentence = f"{last.name} {score(last.overall)}"
        difference = next((d for d in material.differences if d.later == last.key and d.overall.known), None)
        if difference is not None:
            before = next(stage.name for stage in material.stages if stage.key == difference.earlier)
            unclear = "" if difference.overall.is_clear or not difference.overall.has_interval else ": no clear difference"
            sentence += f", {points(difference.overall, unit=True, over=before)}{unclear}"
        return sentence
    for run in reversed(material.runs):
        for metric, words in (("reward_mean", "mean reward"), ("loss", "loss"), ("image_nats", "image loss")):
            values = np.array([v for row in run.metrics if (v := number(row.get(metric))) == v])
            if len(values):
                tenth = max(1, len(values) // 10)
                start, end = short(float(values[:tenth].mean())), short(float(values[-tenth:].mean()))
                return f"{run.title}: {words} from {start} to {end} in {short(run.last('step'))} steps"
    return "Nothing was measured yet"


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
        parts.append(f"{missing:,} {were} no verdict and {'is' if missing == 1 else 'are'} left out, not counted as wrong.")
    return " ".join(parts)


def facts(material: Material) -> list[tuple[str, str]]:
    """What was run, where, and what it cost."""
    env = material.environment
    cores, ram = text(env.get("cores")), number(env.get("ram_gb"))
    hardware = [text(env.get("accelerator") or env.get("cpu")), f"{cores} cores" if cores else ""]
    hardware.append(f"{ram:.0f} GB memory" if ram == ram else "")
    versions = [f"{name} {version}" for name, version in mapping(env.get("versions")).items() if version]
    runs = [
        f"{run.title} {short(steps)} steps" if (steps := run.last("step")) == steps else run.title for run in material.runs
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
        ("Versions", ", ".join([f"Python {env['python']}"] * ("python" in env) + versions)),
        ("Commit", text(env.get("git_commit"))[:12]),
    ]
    return [(name, value) for name, value in rows if value]


def settings(run: Run) -> list[tuple[str, str]]:
    """The settings of a run that decide what its numbers mean."""
    leaves = [(name, value) for name, value in _leaves(run.config) if value is not None and text(value) != ""]
    return [(name, text(value)) for name, value in leaves if name.rpartition(".")[2] in _SETTINGS][:24]


def _leaves(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{name}.")
        elif not isinstance(value, list):
            yield name, value


@dataclass(frozen=True)
class TableRow:
    task: str
    prompts: int | None
    scores: Sequence[Measure]
    differences: Sequence[Measure]


_NOTHING = Measure(math.nan, math.nan, math.nan)


def score_table(stages: Sequence[Stage], differences: Sequence[Difference]) -> tuple[Sequence[Difference], list[TableRow]]:
    """The differences that have a column, and a row per task after the overall one."""
    names = {stage.key for stage in stages}
    shown = [d for d in differences if {d.later, d.earlier} <= names]
    rows = [
        TableRow("Overall", _most(s.overall.prompts for s in stages), [s.overall for s in stages], [d.overall for d in shown])
    ]
    for task in dict.fromkeys(task for stage in stages for task in stage.per_task):
        scores = [stage.per_task.get(task, _NOTHING) for stage in stages]
        gains = [d.per_task.get(task, _NOTHING) for d in shown]
        rows.append(TableRow(task_name(task), _most(s.prompts for s in scores), scores, gains))
    return shown, rows


def _most(counts: Iterator[int | None] | Any) -> int | None:
    return max((count for count in counts if count), default=None)


def dot_plot(stages: Sequence[Stage]) -> Markup | None:
    _, rows = score_table(stages, [])
    drawn = []
    for row in rows if stages else []:
        dots = [(f"stage-{i % 4}", m.value, m.low, m.high) for i, m in enumerate(row.scores) if m.known]
        if dots:
            drawn.append((row.task, dots))
    return interval_plot("scores", "Score of each stage per task, with 95 % intervals", drawn) if drawn else None


def other_measures(stages: Sequence[Stage]) -> list[tuple[str, str, Sequence[str], list[tuple[str, list[Measure]]]]]:
    """Tables beside the score: (title, what it says, stage names, rows)."""
    words = {
        "understanding": ("Understanding", "Share of questions about pictures answered rightly: learning to draw should not unlearn to look."),
        "diversity": ("Diversity", "How much the pictures of one prompt differ: it should not collapse while the score climbs."),
        "thought_precision": ("Thought precision", "Share of what thoughts state that is true of the picture drawn after them."),
    }  # fmt: skip
    tables = []
    for key, (title, says) in words.items():
        having = [stage for stage in stages if key in stage.others]
        names = dict.fromkeys(name for stage in having for name in stage.others[key])
        rows = [(task_name(name), [stage.others[key].get(name, _NOTHING) for stage in having]) for name in names]
        if rows:
            tables.append((title, says, [stage.name for stage in having], rows))
    return tables


def group_data(group: Group) -> dict[str, Any]:
    """A group as the script reads it; what is not a number is null."""
    members = [
        {
            "png": m.picture,
            "thought": cut(m.thought),
            "reward": _or_none(m.reward),
            "advantage": _or_none(m.advantage),
            "components": [[name, _or_none(value)] for name, value in m.components.items()],
            "seed": m.seed,
        }
        for m in group.members
    ]
    return {"step": group.step, "prompt": group.prompt, "tag": task_name(group.tag), "members": members}


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None


def score(measure: Measure) -> str:
    """"0.62 [0.59, 0.65]"."""
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
    """"single_object" → "single object"."""
    return tag.replace("_", " ")


def duration(seconds: float) -> str:
    if not math.isfinite(seconds):
        return ""
    hours, minutes, rest = int(seconds // 3600), int(seconds % 3600 // 60), int(seconds % 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{seconds:.0f} s"


