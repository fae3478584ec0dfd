"""What `thinkdraw eval` prints: scores, and what a reader needs to compare them."""

from thinkdraw.console import print_rows
from thinkdraw.runtime.json_types import JsonMapping, JsonObject


def print_summary(summary: JsonMapping) -> None:
    """Print scores in published units, then judges, prompts, sampling and costs."""
    scale = summary["scale"]
    unit = summary["unit"]
    rows = [_row(name, score, scale, unit) for name, score in summary["per_task"].items()]
    overall = {"value": summary["score"], **{key: summary[key] for key in ("low", "high", "pictures", "prompts")}}
    print_rows([*rows, _row("overall", overall, scale, unit)], heading=str(summary["label"]))
    for line in _facts(summary):
        print(line)


def print_lab(summary: JsonMapping) -> None:
    """Print an evaluation that the lab judged itself."""
    rows = [{"task": task, "score": interval(row, "value")} for task, row in summary["per_task"].items()]
    print_rows([*rows, {"task": "overall", "score": interval(summary, "score")}])
    print(
        f"{summary['pictures']} pictures of {summary['prompts']} prompts, {summary['no_verdict']} without verdict, "
        f"seed {summary['seed']}"
    )
    print(
        f"{summary['benchmark']}[lab-detector] {summary['split']}, policy {summary['revision']}, {_sampling(summary)}"
    )
    for line in [*_thoughts_cut(summary), *_understanding(summary.get("understanding") or {})]:
        print(line)


def print_comparison(comparison: JsonMapping) -> None:
    """Print A minus B: overall, each column, and what both understand."""
    rows = [{"": task, "A − B": interval(score, "value")} for task, score in comparison["per_task"].items()]
    print_rows(
        [*rows, {"": "overall", "A − B": interval(comparison["difference"], "value")}], heading=comparison["label"]
    )
    total = comparison["difference"]
    print(
        f"A = {comparison['a']}, B = {comparison['b']}, paired: {total['prompts']} prompts judged on both sides, {total['pictures']} "
        f"pictures together, {total['num_no_verdict']} without verdict"
    )
    for line in _judges(comparison):
        print(line)
    for side, drawn in comparison["drawn"].items():
        if drawn["sampling"]:
            print(f"{side.upper()}: revision {drawn['revision']}, {_sampling(drawn)}")
    understanding = comparison["understanding"]
    if understanding["a"] or understanding["b"]:
        sides = [
            f"{s.upper()} {interval(understanding[s], 'accuracy') if understanding[s] else 'was not asked'}"
            for s in "ab"
        ]
        sides += [f"A − B {interval(understanding['difference'], 'value')}"] if "difference" in understanding else []
        print(f"understanding: {', '.join(sides)}")
    if vqa := comparison.get("vqa"):
        print(f"vqa: A {vqa['a']:.3f}, B {vqa['b']:.3f}, A − B {interval(vqa['difference'], 'value')}")


def interval(row: JsonMapping, key: str, scale: float = 1.0) -> str:
    """Write a score with its 95 % interval, or that there is no verdict."""
    if row[key] is None:
        return "no verdict"
    digits = 3 if scale == 1 else 2
    ends = [row[name] for name in ("low", "high")]
    known = ", ".join(f"{scale * end:.{digits}f}" for end in ends if end is not None) or "not known"
    return f"{scale * row[key]:.{digits}f} [{known}]"


def _row(name: str, score: JsonMapping, scale: float, unit: str) -> JsonObject:
    return {
        "": name, "score": interval(score, "value", scale), unit: score["pictures"], "prompts": score["prompts"],
    }  # fmt: skip


def _facts(summary: JsonMapping) -> list[str]:
    lines = [
        f"{summary['pictures']} {summary['unit']} of {summary['prompts']} prompts, {summary['no_verdict']} without verdict, "
        "95 % intervals by bootstrap over prompts"
    ]
    lines += _judges(summary)
    if "sampling" in summary:
        lines.append(f"policy: {summary.get('policy')}, revision {summary['revision']}, {_sampling(summary)}")
    lines += _thoughts_cut(summary)
    if spread := summary.get("diversity"):
        lines.append("diversity: " + ", ".join(f"{name} {interval(score, 'value')}" for name, score in spread.items()))
    for name, cost in summary.get("latency", {}).items():
        lines.append(
            f"one picture, thought {name}: {cost['seconds']:.2f} s, {cost['text_tokens']:.0f} text and "
            f"{cost['image_tokens']:.0f} image tokens (mean of {cost['pictures']}, batch {cost['batch']})"
        )
    lines += _understanding(summary.get("understanding") or {})
    lines += [f"{name}: {value:.4f}" for name, value in summary["extra"].items() if isinstance(value, float)]
    return [*lines, *(f"note: {note}" for note in summary["notes"])]


def _judges(summary: JsonMapping) -> list[str]:
    """Describe each judge with its revision, and the prompts."""
    lines = []
    for role, judge in summary["judges"].items():
        known = ", ".join(f"{key} {'unknown' if v is None else v}" for key, v in judge.items() if key != "name")
        lines.append(f"judge of {role}: {judge['name']}, {known}")
    file = f"{summary['prompts_file']}, " if summary.get("prompts_file") else ""
    return [*lines, f"prompts: {file}sha256 {str(summary.get('prompts_sha256') or 'not given')[:12]}"]


def _understanding(answers: JsonMapping) -> list[str]:
    lines = []
    if "accuracy" in answers:
        blank = answers["blanked"]["accuracy"]
        lines.append(
            f"understanding: {interval(answers, 'accuracy')} of {answers['questions']} questions, {blank:.3f} blanked"
        )
    if vqa := answers.get("vqa"):
        kinds = ", ".join(f"{kind} {interval(score, 'value')}" for kind, score in vqa["per_kind"].items())
        lines.append(f"vqa {vqa['file']}: {interval(vqa, 'value')} of {vqa['pictures']} questions; {kinds}")
        lines += [f"note: {problem}" for problem in vqa["problems"][:5]]
    return lines


def _thoughts_cut(summary: JsonMapping) -> list[str]:
    """Say how many thoughts were cut at the budget, if any."""
    cut, limit = summary.get("thoughts_cut_frac"), summary.get("sampling", {}).get("max_thought_tokens")
    return [f"thoughts cut at max_thought_tokens={limit}: {100 * cut:.1f} %"] if cut else []


def _sampling(summary: JsonMapping) -> str:
    used = {key: value for key, value in summary["sampling"].items() if value not in (None, False)}
    return f"sampling {', '.join(f'{key} {value}' for key, value in used.items())}, seed {summary['seed']}"
