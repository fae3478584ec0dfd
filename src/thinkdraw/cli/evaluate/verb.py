"""`thinkdraw eval`: draw or read pictures, have them judged, print scores."""

import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from thinkdraw.cli.grammar.completion import checkpoint_or_benchmark
from thinkdraw.cli.grammar.options import AsJson, Count, DryRun, Out
from thinkdraw.console import tell
from thinkdraw.errors import UserError

if TYPE_CHECKING:
    from thinkdraw.studies.evaluate import Evaluation
    from thinkdraw.studies.evaluate_import import EvalConfig

LAB = "lab-"
# What the lab's own evaluation does not take: with one of these the lab's prompts go through a benchmark's class.
_BEYOND_LAB = {
    "images", "export_official", "judges", "settings", "vqa", "pictures", "latency_pictures", "max_no_verdict_frac",
    "reward",
}  # fmt: skip
_WITHOUT_POLICY = {"images", "import_official", "compare"}
_ROLE = re.compile(r"judges\.[^.=]+=")


def evaluate(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="CHECKPOINT [BENCHMARK…] KEY=VALUE…",
            help="Checkpoint folder, run folder (its best one), Hugging Face id, or lab; names of `thinkdraw list benchmarks`, "
            "lab-geneval if left out; then settings: samples=2, sampling.thought=off, split=ood, prompts=geneval/, "
            "judges.detector=owlv2; or prompts=mine.txt reward=lab-clip. "
            "In place of a checkpoint: images=FOLDER, import_official=FILE, or compare=[A,B].",
            autocompletion=checkpoint_or_benchmark,
        ),
    ] = None,
    out: Out = None,
    count: Count = None,
    json_: AsJson = False,
    dry_run: DryRun = False,
) -> None:
    """Draw a benchmark's prompts or your own, judge the pictures, print scores.

    Scores have 95 % intervals. An evaluation that was stopped goes on.

    Example: thinkdraw eval runs/quickstart/grpo lab-geneval -n 96 samples=2
    Example: thinkdraw eval CHECKPOINT prompts=mine.txt reward=lab-clip
    """
    from thinkdraw.benchmarks import BENCHMARKS
    from thinkdraw.cli.grammar.reading import keys_of, overrides, print_config, split
    from thinkdraw.config import load_config
    from thinkdraw.lab.prompts import family_of
    from thinkdraw.studies.evaluate_import import EvalConfig, compare_folders

    settings = [_role_as_section(text) for text in split(words)[1]]
    targets = ("benchmarks…",) if keys_of(settings) & _WITHOUT_POLICY else ("policy", "benchmarks…")
    config = load_config(
        EvalConfig, None, overrides([*split(words)[0], *settings], targets, {"out": out, "count": count})
    )
    if config.policy is not None and (config.policy in BENCHMARKS or family_of(config.policy)):
        raise UserError(
            f"give a checkpoint that draws the pictures, in front of the benchmark: thinkdraw eval lab {config.policy}"
        )
    if dry_run:
        return print_config(config)
    if config.compare is not None:
        return _print_comparisons(compare_folders(*config.compare), json_)
    if config.import_official is not None:
        return _import(config, json_)
    if config.prompts is not None and config.reward is None and all(name.startswith(LAB) for name in config.benchmarks):
        raise UserError(
            f"prompts={config.prompts}: {', '.join(config.benchmarks)} makes its own prompts. Name the reward that judges "
            "pictures of yours, reward=NAME, or the benchmark that the file belongs to."
        )
    beyond = any(getattr(config, key) not in (None, {}) for key in config.model_fields_set & _BEYOND_LAB)
    if config.policy is not None and all(name.startswith(LAB) for name in config.benchmarks) and not beyond:
        return _lab(config, json_)
    from thinkdraw.studies.evaluate import run

    _print_evaluations(run(config), json_)


def _role_as_section(setting: str) -> str:
    """Write `judges.ROLE=NAME` as `judges.ROLE.name=NAME`; settings may follow."""
    key, _, value = setting.partition("=")
    return f"{key}.name={value}" if _ROLE.match(setting) and not value.lstrip().startswith("{") else setting


def _lab(config: "EvalConfig", as_json: bool) -> None:
    """Run the lab's own evaluation, whose folders the recipes and the report know."""
    from thinkdraw.benchmarks.lab.benchmark import evaluate_lab
    from thinkdraw.cli.evaluate.tables import print_lab
    from thinkdraw.lab.prompts import SPECS, family_of
    from thinkdraw.policies.drawing import choose_drawing
    from thinkdraw.policies.opening import load_trained
    from thinkdraw.runtime.device import pick_device
    from thinkdraw.studies.evaluate_open import LAB_COUNT, lab_split

    split, count = lab_split(config.split), config.count or LAB_COUNT
    if count < 6:
        raise UserError(f"count={count}: the lab's sets need at least 6 prompts, one per task.")
    for name in config.benchmarks:
        family = family_of(name)
        if family is None:
            raise UserError(f"benchmark {name}: the lab has {', '.join(LAB + known for known in SPECS)}.")
        folder = config.out and (config.out / name if len(config.benchmarks) > 1 else config.out)
        policy = load_trained(str(config.policy), config.precision, device=str(pick_device(config.device)))
        drawing = choose_drawing(policy, config.sampling, config.drawing)
        tell(f"{config.policy} {drawing.line()}")
        report = evaluate_lab(
            policy, family, split, count, config.samples or 4, drawing.sampling, config.seed, folder,
            questions_per_type=config.questions_per_type,
            chunk=config.chunk if "chunk" in config.model_fields_set else 256,
        )  # fmt: skip
        if as_json:
            print(json.dumps(report.summary(), indent=2))
        else:
            print_lab(report.summary())


def _import(config: "EvalConfig", as_json: bool) -> None:
    from thinkdraw.studies.evaluate_import import import_official

    assert config.import_official is not None
    names = config.benchmarks
    if len(names) != 1 or names[0].startswith(LAB):
        raise UserError(
            f"import_official reads one benchmark's file, not {', '.join(names)}'s. Name the benchmark: "
            "thinkdraw eval geneval import_official=FILE"
        )
    evaluation = import_official(names[0], config.import_official, config.prompts, config.out, config.settings)
    _print_evaluations([evaluation], as_json, is_list=False)


def _print_evaluations(evaluations: "Sequence[Evaluation]", as_json: bool, is_list: bool = True) -> None:
    from thinkdraw.cli.evaluate.tables import print_summary

    if as_json:
        summaries = [dict(evaluation.summary) for evaluation in evaluations]
        print(json.dumps(summaries if is_list else summaries[0], indent=2))
        return
    for evaluation in evaluations:
        print_summary(evaluation.summary)
        print(f"rows and summary: {evaluation.folder}")
        if (page := evaluation.folder / "pictures.html").is_file():
            print(f"pictures to look at: {page}")


def _print_comparisons(comparisons: Sequence[dict], as_json: bool) -> None:
    from thinkdraw.cli.evaluate.tables import print_comparison

    if as_json:
        print(json.dumps(comparisons, indent=2))
        return
    for comparison in comparisons:
        print_comparison(comparison)
