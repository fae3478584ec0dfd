"""Evaluate a checkpoint, or any pictures, on benchmarks.

    thinkdraw eval runs/quickstart/grpo geneval prompts=benchmarks/geneval

OUT/<benchmark>/ holds the pictures (pictures/, with drawing.json and drawn.jsonl) and a folder per judge. That one has
settings.json, results.jsonl, summary.json, pictures.html and, in official/, the original scorer's result files. An evaluation that was
stopped goes on where it was.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from thinkdraw.benchmarks.base import (
    Layout,
    PictureSet,
    ReadsThoughts,
    RefusesGaps,
    Report,
    Row,
    WritesResults,
    null_for_nan,
)
from thinkdraw.benchmarks.drawn_folder import draw_into_folder, drawn_files
from thinkdraw.benchmarks.flow import (
    numbers,
    prompt_notes,
    read_notes,
    report_on,
    score_pictures,
    spread_of_pictures,
    summary_of,
)
from thinkdraw.benchmarks.lab.understanding import evaluate_understanding
from thinkdraw.benchmarks.latency import latency
from thinkdraw.benchmarks.picture_files import Inventory, by_reason, list_pictures, read_set
from thinkdraw.benchmarks.settings import write_or_check_settings
from thinkdraw.benchmarks.statistics import Score
from thinkdraw.benchmarks.vqa import evaluate_vqa, read_vqa
from thinkdraw.console import tell
from thinkdraw.data.over_long import fit_prompts
from thinkdraw.errors import UserError
from thinkdraw.picture_reader import PictureReaderConfig
from thinkdraw.policies.drawing import choose_drawing
from thinkdraw.policies.opening import load_trained
from thinkdraw.runtime.device import pick_device
from thinkdraw.runtime.formats.sealed import write_sealed
from thinkdraw.runtime.json_types import JsonMapping, JsonObject
from thinkdraw.studies.evaluate_open import EvaluateConfig, OpenBenchmark, judge_folder, open_benchmark, output_folder
from thinkdraw.studies.picture_page import PAGE, write_picture_page
from thinkdraw.training.display import Display
from thinkdraw.types import Policy, Sampling


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """A benchmark's result. summary: what summary.json holds; folder: where it is."""

    report: Report
    summary: JsonMapping
    folder: Path

    @property
    def score(self) -> Score:
        """The overall score."""
        return self.report.overall


def run(config: EvaluateConfig, policy: Policy | None = None, say: Callable[[str], None] = tell) -> list[Evaluation]:
    """Evaluate on every benchmark of the configuration.

    policy: the one that `config.policy` names, if it is open already. say: prints how it draws.
    Raises UserError before the first picture is drawn, for whatever is wrong with prompts, judges or checkpoint.
    """
    if (config.policy is None) == (config.images is None):
        raise UserError(
            "give a checkpoint that draws the pictures, or images=FOLDER with finished ones: one of the two."
        )
    if config.images is not None and not config.images.is_dir():
        raise UserError(f"images={config.images} is not a folder. Give the folder of an official layout.")
    if config.reward is not None and "own" not in config.benchmarks:
        raise UserError(
            f"reward={config.reward.name} judges prompts of your own, and {', '.join(config.benchmarks)} have judges of their "
            "own. Leave the benchmark out, or set judges.ROLE."
        )
    benchmarks = [open_benchmark(name, config) for name in config.benchmarks]
    if config.images is not None:
        return [_from_images(config, opened) for opened in benchmarks]
    policy = policy or load_trained(str(config.policy), config.precision, device=str(pick_device(config.device)))
    drawing = choose_drawing(policy, config.sampling, config.drawing)
    say(f"{config.policy} {drawing.line()}")
    for opened in benchmarks:
        fit_prompts(policy, list(opened.prompts.values()), drawing.sampling, "refuse", opened.file, "")
    understanding = _understanding(config, policy)
    return [_from_policy(config, opened, policy, drawing.sampling, understanding) for opened in benchmarks]


def _from_images(config: EvaluateConfig, opened: OpenBenchmark) -> Evaluation:
    assert config.images is not None
    if own := opened.pictures:
        inventory = list_pictures(own.folder, own.layout, opened.prompts, opened.samples, config.pictures)
        source = {"source": "images", "reading": config.pictures.model_dump()}
        return _score(config, opened, inventory, source, {"images": str(config.images)}, {})
    inside = config.images / opened.benchmark.name
    folder = inside if inside.is_dir() and len(config.benchmarks) > 1 else config.images
    layout = opened.benchmark.official_pictures(folder, opened.all_prompts, opened.samples)
    inventory = list_pictures(folder, layout, opened.prompts, opened.samples, config.pictures)
    if not layout.files:
        there = f" There are {by_reason(inventory.extra)}." if inventory.extra else ""
        raise UserError(
            f"{folder} holds no picture in {opened.benchmark.name}'s official layout, {layout.expected}.{there} Check the folder."
        )
    source = {"source": "images", "reading": config.pictures.model_dump()}
    return _score(config, opened, inventory, source, {"images": str(folder)}, {})


def _from_policy(
    config: EvaluateConfig, opened: OpenBenchmark, policy: Policy, sampling: Sampling, understanding: JsonMapping
) -> Evaluation:
    drawing: JsonObject = {
        "benchmark": opened.benchmark.name, "prompts_sha256": opened.sha256, "indices": opened.which,
        "samples": opened.samples, "seed": config.seed, "revision": policy.revision,
        "sampling": sampling.model_dump(mode="json"), "precision": policy.precision,
    }  # fmt: skip
    folder = output_folder(config) / opened.folder_name
    with Display(f"draw {opened.benchmark.name}", len(opened.prompts) * opened.samples, 1) as display:
        rows = draw_into_folder(
            folder, policy, opened.prompts, drawing, sampling, samples=opened.samples, seed=config.seed,
            chunk=config.chunk, progress=_shown(display),
        )  # fmt: skip
    if isinstance(opened.benchmark, ReadsThoughts):
        opened.benchmark.read_drawn(rows)
    layout = Layout(drawn_files(folder, opened.prompts, opened.samples))
    inventory = list_pictures(folder / "pictures", layout, opened.prompts, opened.samples)
    measures = _cost(config, opened, policy, sampling, rows) | (
        {"understanding": understanding} if understanding else {}
    )
    apart = [row["token_distance"] for row in rows if row["sample"] == 0 and row["token_distance"] is not None]
    tokens = {"token_distance": float(np.mean(apart))} if apart else {}
    drawing.pop("benchmark")
    thoughts = {(row["prompt_index"], row["sample"]): row["thought"] for row in rows}
    shown = {"policy": config.policy}
    return _score(config, opened, inventory, {"source": "policy", **drawing}, shown, measures | tokens, thoughts)


def _score(
    config: EvaluateConfig, opened: OpenBenchmark, inventory: Inventory, source: JsonMapping, shown: JsonMapping,
    measures: JsonMapping, thoughts: Mapping[tuple[int, int], str] | None = None,
) -> Evaluation:  # fmt: skip
    """Judge the pictures of a benchmark, and write the result.

    source: facts that settings.json guards besides the judges. shown: further facts for the summary.
    thoughts: (prompt index, sample) → what was written before it was drawn, for the page of pictures.
    """
    benchmark = opened.benchmark
    folder = output_folder(config) / opened.folder_name / judge_folder(benchmark.label)
    settings = {
        "benchmark": benchmark.name, "label": benchmark.label, "judges": opened.judges, "settings": config.settings,
        "prompts_sha256": opened.sha256, "num_prompts": len(opened.prompts), "samples": opened.samples, **source,
    }  # fmt: skip
    if isinstance(benchmark, RefusesGaps):
        benchmark.check_missing(inventory.missing, opened.all_prompts)
    write_or_check_settings(
        folder / "settings.json",
        settings,
        since={"reading": PictureReaderConfig().model_dump()},
        rows=folder / "results.jsonl",
    )
    if config.export_official is not None:
        _export(config, opened, inventory)
    with Display(f"judge {benchmark.name}", len(opened.prompts), 1) as display:
        rows = score_pictures(
            benchmark, opened.prompts, inventory, folder, samples=opened.samples, prompts_at_once=config.prompts_at_once,
            max_no_verdict_frac=config.max_no_verdict_frac, progress=_shown(display),
        )  # fmt: skip
    notes = inventory.notes() + prompt_notes(
        benchmark, len(opened.all_prompts), len(opened.prompts), opened.samples, opened.sha256, opened.git_hash
    )
    report = report_on(benchmark, rows, notes)
    spread = {name: numbers(score) for name, score in spread_of_pictures(rows).items()}
    extra: JsonObject = {
        "prompts_file": opened.file, "missing": len(inventory.missing), "extra_files": len(inventory.extra),
        "extra_by_reason": Counter(inventory.extra.values()), "unreadable": sum(row.get("unreadable", False) for row in rows),
        "read": read_notes(rows),
    }  # fmt: skip
    summary = summary_of(report, settings, **extra, **shown, diversity=spread, **measures)
    write_sealed(folder / "summary.json", summary)
    write_picture_page(folder / PAGE, report, rows, inventory, thoughts or {})
    if isinstance(benchmark, WritesResults):
        benchmark.write_results(folder / "official", rows)
    return Evaluation(report, summary, folder)


def _shown(display: Display) -> Callable[[int, int], None]:
    """Make a callback that shows progress at every twentieth of the whole."""
    last = [-1]

    def show(done: int, total: int) -> None:
        if (step := 20 * done // total) > last[0]:
            last[0] = step
            display.show(done, {}, ())

    return show


def _export(config: EvaluateConfig, opened: OpenBenchmark, inventory: Inventory) -> None:
    assert config.export_official is not None
    several = len(config.benchmarks) > 1
    folder = config.export_official / opened.benchmark.name if several else config.export_official

    def pictures() -> Iterator[PictureSet]:
        for index, prompt in opened.prompts.items():
            read = read_set(index, prompt, inventory, opened.samples)
            if read.problems:
                sample, reason = next(iter(read.problems.items()))
                raise UserError(f"prompt {index} picture {sample} cannot be exported: {reason}. Draw it first.")
            yield read.pictures

    opened.benchmark.export_official(folder, opened.all_prompts, pictures())


def _cost(
    config: EvaluateConfig, opened: OpenBenchmark, policy: Policy, sampling: Sampling, rows: list[Row]
) -> JsonObject:
    """Measure seconds and tokens per picture.

    Of this drawing, and of a few pictures drawn one by one, with and without a thought.
    """
    drawn = {key: float(np.mean([row[key] for row in rows])) for key in ("seconds", "text_tokens", "image_tokens")}
    cost: JsonObject = {"drawing": {**drawn, "pictures": len(rows), "batch": config.chunk}}
    if sampling.thought != "off":
        cost["thoughts_cut_frac"] = float(np.mean([row["thought_cut"] for row in rows]))
    if config.latency_pictures:
        few = list(opened.prompts.values())[: config.latency_pictures]
        measured = latency(policy, few, sampling, seed=config.seed)
        cost["latency"] = {name: dataclasses.asdict(kind) for name, kind in measured.items()}
    return cost


def _understanding(config: EvaluateConfig, policy: Policy) -> JsonObject:
    """Ask the policy questions about pictures: the lab's own, and those of a file.

    Training to draw can cost a model its understanding.
    """
    answers: JsonObject = {}
    if config.questions_per_type:
        answers = evaluate_understanding(policy, config.questions_per_type, config.seed).summary()
    if config.vqa is not None:
        report = evaluate_vqa(policy, read_vqa(config.vqa), seed=config.seed, reading=config.pictures)
        answers["vqa"] = {
            **numbers(report.accuracy), "file": config.vqa.name, "problems": list(report.problems),
            "per_kind": {kind: numbers(score) for kind, score in report.per_kind.items()}, "rows": list(report.rows),
        }  # fmt: skip
    return null_for_nan(answers)
