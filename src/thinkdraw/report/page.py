"""The page: turns the collected data into sentences, tables and HTML.

Prompts and thoughts are text that a policy or a stranger wrote. They reach the page through jinja2's autoescape, or as
JSON that the script inserts as text. The content security policy lets no other script run and nothing be fetched.
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
from thinkdraw.report.collect import Group, ReportData
from thinkdraw.report.curves import charts_of, hacking_signs
from thinkdraw.report.scores import Difference, Measure, Stage
from thinkdraw.report.words import (
    change_sentence,
    cut,
    facts,
    headline,
    lead,
    measure_name,
    settings,
    stage_sentence,
    task_name,
)
from thinkdraw.runtime.json_types import JsonMapping, JsonObject

_NUM_FIRST = 6  # comparisons that are shown at once; the rest unfolds


def render(report: ReportData, reload_s: int | None = None) -> str:
    """Render the whole page as HTML.

    reload_s: seconds after which the page loads itself again; None never.
    """
    environment = Environment(
        loader=PackageLoader("thinkdraw.report"),
        autoescape=True,  # for every template: the names end in .j2
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"cut": cut, "task": task_name}
    script = Markup(environment.get_template("script.js.j2").render())  # a constant of the package
    curves = [(run, charts_of(run, f"run{i}")) for i, run in enumerate(report.runs)]
    stages = [stage for stage in report.stages if stage.overall.known or stage.per_task]
    groups = [group for run in report.runs for group in run.groups]
    signs = [(run, shown) for i, run in enumerate(report.runs) if (shown := hacking_signs(run, f"run{i}")).charts]
    drawn = [chart for _, charts in curves for chart in charts] + [
        chart for _, shown in signs for chart in shown.charts
    ]
    hover = {chart.name: chart.plot.hover for chart in drawn}
    return environment.get_template("page.html.j2").render(
        report=report,
        headline=headline(report),
        lead=lead(report, stages),
        facts=facts(report),
        settings=[(run, settings(run)) for run in report.runs],
        stages=stages,
        table=score_table(stages, report.differences),
        dots=dot_plot(stages),
        curves=curves,
        hacking=signs,
        reload_s=reload_s,
        changes=change_sentence(report),
        stage_sentence=stage_sentence(stages),
        samplings=samplings(stages),
        first_comparisons=report.comparisons[:_NUM_FIRST],
        more_comparisons=report.comparisons[_NUM_FIRST:],
        other_measures=other_tables(report.stages),
        has_groups=bool(groups),
        data=embed_json({"charts": hover, "groups": [group_data(group) for group in groups]}),
        chart_style=Markup(STYLE),  # a constant of the package
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def embed_json(value: object) -> Markup:
    """Write JSON that is safe inside a <script> element.

    Nothing in it can close the element or open a comment.
    """
    escapes = {ord(char): f"\\u{ord(char):04x}" for char in "<>&"}
    return Markup(json.dumps(value, allow_nan=False, separators=(",", ":")).translate(escapes))


@dataclass(frozen=True)
class TableRow:
    """A row of the score table: a task, its scores by stage, and their differences."""

    task: str
    prompts: int | None
    scores: Sequence[Measure]
    differences: Sequence[Measure]


_NOTHING = Measure(math.nan, math.nan, math.nan)


def score_table(
    stages: Sequence[Stage], differences: Sequence[Difference]
) -> tuple[Sequence[Difference], list[TableRow]]:
    """Return the differences that have a column, and one row per task.

    The first row is the overall score.
    """
    names = {stage.key for stage in stages}
    columns = [d for d in differences if {d.later, d.earlier} <= names]
    rows = [
        TableRow(
            "Overall",
            _most(s.overall.prompts for s in stages),
            [s.overall for s in stages],
            [d.overall for d in columns],
        )
    ]
    for task in dict.fromkeys(task for stage in stages for task in stage.per_task):
        scores = [stage.per_task.get(task, _NOTHING) for stage in stages]
        gains = [d.per_task.get(task, _NOTHING) for d in columns]
        rows.append(TableRow(task_name(task), _most(s.prompts for s in scores), scores, gains))
    return columns, rows


def _most(counts: Iterable[int | None]) -> int | None:
    return max((count for count in counts if count), default=None)


def dot_plot(stages: Sequence[Stage]) -> Markup | None:
    _, rows = score_table(stages, [])
    tasks = []
    for row in rows if stages else []:
        dots = [(f"stage-{i % 4}", m.value, m.low, m.high) for i, m in enumerate(row.scores) if m.known]
        if dots:
            tasks.append((row.task, dots))
    return interval_plot("scores", "Score of each stage per task, with 95 % intervals", tasks) if tasks else None


def samplings(stages: Sequence[Stage]) -> list[tuple[str, JsonMapping]]:
    """List (stage names, sampling settings); stages that sampled alike are one entry."""
    names: dict[str, tuple[list[str], JsonMapping]] = {}
    for stage in stages:
        if stage.sampling:
            names.setdefault(json.dumps(stage.sampling, sort_keys=True), ([], stage.sampling))[0].append(stage.name)
    return [(", ".join(of_stages), sampling) for of_stages, sampling in names.values()]


_OTHER_MEASURES = {
    "understanding": (
        "Understanding",
        "Share of right answers to questions about test pictures. It should not fall: a policy that learns to draw should "
        "still understand pictures.",
    ),
    "diversity": (
        "Diversity",
        "How much the pictures of one prompt differ from each other. It should not collapse while the score climbs.",
    ),
    "thought_precision": (
        "Thought precision",
        "Share of the statements in thoughts that are true of the picture drawn after them.",
    ),
}


def other_tables(stages: Sequence[Stage]) -> list[tuple[str, str, Sequence[str], list[tuple[str, list[Measure]]]]]:
    """Make the tables of other measures: (title, meaning, stage names, rows)."""
    tables = []
    for key, (title, meaning) in _OTHER_MEASURES.items():
        measured = [stage for stage in stages if key in stage.other_measures]
        names = dict.fromkeys(name for stage in measured for name in stage.other_measures[key])
        rows = [
            (measure_name(key, name), [stage.other_measures[key].get(name, _NOTHING) for stage in measured])
            for name in names
        ]
        if rows:
            tables.append((title, meaning, [stage.name for stage in measured], rows))
    return tables


def group_data(group: Group) -> JsonObject:
    """Prepare a group for the script; what is not a number becomes null."""
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
