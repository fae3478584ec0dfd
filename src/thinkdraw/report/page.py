"""The page: what was collected, put into words, tables and the template.

Prompts and thoughts are text that a policy or a stranger wrote. They reach the page through jinja2's autoescape, or as
JSON that the script puts in place as text; the content security policy lets no other script run and nothing be fetched.
"""

import base64
import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from thinkdraw.charts.intervals import interval_plot
from thinkdraw.charts.style import STYLE
from thinkdraw.report.collect import Group, Material
from thinkdraw.report.curves import charts_of
from thinkdraw.report.scores import Difference, Measure, Stage
from thinkdraw.report.words import change_sentence, cut, facts, headline, lead, settings, task_name
from thinkdraw.runtime.json_types import JsonObject

_SHOWN_AT_ONCE = 6  # comparisons before the fold


def render(material: Material) -> str:
    """The whole page as HTML."""
    environment = Environment(
        loader=PackageLoader("thinkdraw.report"),
        autoescape=True,  # for every template: the names end in .j2
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"cut": cut, "task": task_name}
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
        changes=change_sentence(material),
        at_once=material.comparisons[:_SHOWN_AT_ONCE],
        folded=material.comparisons[_SHOWN_AT_ONCE:],
        others=other_measures(material.stages),
        has_groups=bool(groups),
        data=embed_json({"charts": hover, "groups": [group_data(group) for group in groups]}),
        chart_style=Markup(STYLE),  # a constant of the package
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def embed_json(value: object) -> Markup:
    """JSON that is safe inside a <script> element: nothing in it can close the element or open a comment."""
    escapes = {ord(char): f"\\u{ord(char):04x}" for char in "<>&"}
    return Markup(json.dumps(value, allow_nan=False, separators=(",", ":")).translate(escapes))


@dataclass(frozen=True)
class TableRow:
    task: str
    prompts: int | None
    scores: Sequence[Measure]
    differences: Sequence[Measure]


_NOTHING = Measure(math.nan, math.nan, math.nan)


def score_table(
    stages: Sequence[Stage], differences: Sequence[Difference]
) -> tuple[Sequence[Difference], list[TableRow]]:
    """The differences that have a column, and a row per task after the overall one."""
    names = {stage.key for stage in stages}
    shown = [d for d in differences if {d.later, d.earlier} <= names]
    rows = [
        TableRow(
            "Overall", _most(s.overall.prompts for s in stages), [s.overall for s in stages], [d.overall for d in shown]
        )
    ]
    for task in dict.fromkeys(task for stage in stages for task in stage.per_task):
        scores = [stage.per_task.get(task, _NOTHING) for stage in stages]
        gains = [d.per_task.get(task, _NOTHING) for d in shown]
        rows.append(TableRow(task_name(task), _most(s.prompts for s in scores), scores, gains))
    return shown, rows


def _most(counts: Iterable[int | None]) -> int | None:
    return max((count for count in counts if count), default=None)


def dot_plot(stages: Sequence[Stage]) -> Markup | None:
    _, rows = score_table(stages, [])
    drawn = []
    for row in rows if stages else []:
        dots = [(f"stage-{i % 4}", m.value, m.low, m.high) for i, m in enumerate(row.scores) if m.known]
        if dots:
            drawn.append((row.task, dots))
    return interval_plot("scores", "Score of each stage per task, with 95 % intervals", drawn) if drawn else None


_OTHERS = {
    "understanding": (
        "Understanding",
        "Share of questions about pictures answered rightly: learning to draw should not unlearn to look.",
    ),
    "diversity": (
        "Diversity",
        "How much the pictures of one prompt differ: it should not collapse while the score climbs.",
    ),
    "thought_precision": (
        "Thought precision",
        "Share of what thoughts state that is true of the picture drawn after them.",
    ),
}


def other_measures(stages: Sequence[Stage]) -> list[tuple[str, str, Sequence[str], list[tuple[str, list[Measure]]]]]:
    """Tables beside the score: (title, what it says, stage names, rows)."""
    tables = []
    for key, (title, says) in _OTHERS.items():
        having = [stage for stage in stages if key in stage.others]
        names = dict.fromkeys(name for stage in having for name in stage.others[key])
        rows = [(task_name(name), [stage.others[key].get(name, _NOTHING) for stage in having]) for name in names]
        if rows:
            tables.append((title, says, [stage.name for stage in having], rows))
    return tables


def group_data(group: Group) -> JsonObject:
    """A group as the script reads it; what is not a number is null."""
    members = [
        {
            "png": m.picture,
            "thought": cut(m.thought),
            "reward": _or_none(m.reward),
            "advantage": _or_none(m.advantage),
            "components": [[name, _or_none(value)] for name, value in m.components.items()],
            "seed": m.seed,
            "segments": [{"kind": s.kind, "text": cut(s.text), "png": s.picture} for s in m.segments],
        }
        for m in group.members
    ]
    return {"step": group.step, "prompt": group.prompt, "tag": task_name(group.tag), "members": members}


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None
