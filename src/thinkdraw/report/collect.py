"""Reads a run folder, or a folder of runs such as the quickstart's, for the page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from thinkdraw.errors import UserError
from thinkdraw.report.files import data_uri, mapping, number, read_json, read_rows, text
from thinkdraw.report.scores import Comparison, Difference, Stage, read_comparisons, read_differences, read_stages
from thinkdraw.runtime.endpoints import mask_secrets
from thinkdraw.runtime.formats import name_file_in_errors, parse_yaml, read_parquet
from thinkdraw.runtime.json_types import JsonMapping

MAX_INSPECTED_STEPS = 40
MAX_INSPECTED_ROWS = 128  # rollouts of one step
_RUN_ORDER = ("sft", "grpo")


@dataclass(frozen=True)
class ReportSegment:
    """A segment of a rollout. kind: text, drawn or shown.

    picture: data URI, None for a text.
    """

    kind: str
    text: str
    picture: str | None


@dataclass(frozen=True)
class GroupMember:
    """One rollout of a group. reward and advantage: NaN = no verdict.

    picture: data URI or None.
    segments: all that was written, drawn and shown, in order; () for a thought and then a picture.
    """

    picture: str | None
    thought: str
    reward: float
    advantage: float
    components: Mapping[str, float]
    seed: str
    segments: Sequence[ReportSegment] = ()


@dataclass(frozen=True)
class Group:
    """The rollouts of one prompt at one step, best reward first."""

    step: int
    prompt: str
    tag: str
    members: Sequence[GroupMember]


@dataclass(frozen=True)
class Run:
    """One run folder. config: resolved, nested. metrics: rows of metrics.jsonl."""

    name: str
    config: JsonMapping
    config_text: str
    environment: JsonMapping
    metrics: Sequence[JsonMapping]
    groups: Sequence[Group]

    @property
    def kind(self) -> str:
        """What kind of run it is, told by its metrics: "grpo", "sft" or ""."""
        metrics = {key for row in self.metrics for key in row}
        return "grpo" if "reward_mean" in metrics else "sft" if "text_nats" in metrics else ""

    @property
    def title(self) -> str:
        return {"grpo": "GRPO", "sft": "SFT"}.get(self.kind, self.name)

    def last(self, key: str) -> float:
        """Return the last known value of a metric, or NaN."""
        known = (value for row in reversed(self.metrics) if (value := number(row.get(key))) == value)
        return next(known, number(None))


@dataclass(frozen=True)
class ReportData:
    """Everything on the page. notes: what could not be read.

    seconds, peak_memory_gb: NaN if not recorded.
    """

    name: str
    stages: Sequence[Stage]
    differences: Sequence[Difference]
    comparisons: Sequence[Comparison]
    runs: Sequence[Run]
    seconds: float
    peak_memory_gb: float
    seed: str
    notes: Sequence[str]

    @property
    def environment(self) -> JsonMapping:
        return next((run.environment for run in reversed(self.runs) if run.environment), {})


def collect(folder: Path) -> ReportData:
    """Read `folder`. Raises UserError if it holds neither a run nor an evaluation."""
    if not folder.is_dir():
        raise UserError(
            f"{folder} is not a folder: a report is made of a run folder. Name one, for example runs/quickstart."
        )
    notes: list[str] = []
    summary = read_json(folder / "summary.json", notes)
    folders = [folder] if _is_run(folder) else sorted((p for p in folder.iterdir() if _is_run(p)), key=_run_rank)
    runs = [_run(path, notes) for path in folders]
    stages = read_stages(folder / "eval", summary, notes)
    if not runs and not stages:
        raise UserError(
            f"{folder} holds no run: it has no metrics.jsonl, no runs below it, and no eval/. "
            "Name the folder that a training wrote, for example runs/quickstart."
        )
    seconds, peak = (number(summary.get(key)) for key in ("seconds", "peak_memory_gb"))
    if seconds != seconds:
        per_run = [value for run in runs if (value := run.last("seconds")) == value]
        seconds = sum(per_run) if per_run else seconds
    if peak != peak:
        peak = max((v for run in runs if (v := run.last("peak_memory_gb")) == v), default=peak)
    seeds = dict.fromkeys(text(run.config["seed"]) for run in runs if run.config.get("seed") is not None)
    return ReportData(
        name=folder.resolve().name,
        stages=stages,
        differences=read_differences(stages, summary),
        comparisons=read_comparisons(folder / "eval", stages),
        runs=runs,
        seconds=seconds,
        peak_memory_gb=peak,
        seed=text(summary.get("seed")) or ", ".join(seeds),
        notes=notes,
    )


def _is_run(path: Path) -> bool:
    return (path / "metrics.jsonl").is_file()


def _run_rank(path: Path) -> tuple[int, str]:
    return (_RUN_ORDER.index(path.name) if path.name in _RUN_ORDER else len(_RUN_ORDER), path.name)


def _run(folder: Path, notes: list[str]) -> Run:
    path = folder / "config.yaml"
    config_text = mask_secrets(path.read_text(encoding="utf-8", errors="replace")) if path.is_file() else ""
    try:
        config = mapping(parse_yaml(config_text) if config_text else {})
    except ValueError:
        config = {}
        notes.append(f"config.yaml in {folder.name}/ is not YAML. The page shows it unread.")
    return Run(
        name=folder.resolve().name,
        config=config,
        config_text=config_text,
        environment=read_json(folder / "environment.json", notes),
        metrics=read_rows(folder / "metrics.jsonl", notes),
        groups=_groups(folder / "rollouts", notes),
    )


def _groups(folder: Path, notes: list[str]) -> list[Group]:
    """Read the groups of at most MAX_INSPECTED_STEPS steps.

    The steps are evenly spread; the first and the last are among them.
    """
    paths = sorted(folder.glob("step_*.parquet"))
    if len(paths) > MAX_INSPECTED_STEPS:
        spread = (len(paths) - 1) / (MAX_INSPECTED_STEPS - 1)
        paths = [paths[round(i * spread)] for i in range(MAX_INSPECTED_STEPS)]
    groups: list[Group] = []
    for path in paths:
        try:
            table = read_parquet(path, "")
            with name_file_in_errors(path, ""):
                rows = table.slice(0, MAX_INSPECTED_ROWS).to_pylist()
        except UserError:
            notes.append(f"{path.name} in rollouts/ cannot be read and was left out.")
            continue
        groups += _groups_of(rows)
    return groups


def _groups_of(rows: Sequence[JsonMapping]) -> list[Group]:
    groups: dict[tuple[int, str], list[JsonMapping]] = {}
    for row in rows:
        step = number(row.get("step"))
        groups.setdefault((int(step) if step == step else 0, text(row.get("group"))), []).append(row)
    return [
        Group(step, text(members[0].get("prompt")), text(members[0].get("tag")), _members(members))
        for (step, _), members in groups.items()
    ]


def _members(rows: Sequence[JsonMapping]) -> list[GroupMember]:
    members = [
        GroupMember(
            picture=data_uri(row.get("png")),
            thought=text(row.get("thought")),
            reward=number(row.get("reward")),
            advantage=number(row.get("advantage")),
            components={text(name): number(value) for name, value in mapping(row.get("components")).items()},
            seed=text(row.get("seed")),
            segments=_segments(row.get("segments")),
        )
        for row in rows
    ]
    return sorted(members, key=lambda m: -m.reward if m.reward == m.reward else float("inf"))


def _segments(value: object) -> list[ReportSegment]:
    segments = [mapping(segment) for segment in value] if isinstance(value, list) else []
    return [ReportSegment(text(s.get("kind")), text(s.get("text")), data_uri(s.get("png"))) for s in segments]
