"""The controls behind the quickstart's claim, each a run of the same recipes judged on the same prompts and seeds.

    thinkdraw evidence

* `rl` of a second seed: is the gain luck?
* `sft-longer`: SFT continued for RL's seconds. Does RL do more than training longer would?
* `rl-judge`: RL from `lab-judge` alone, a frozen copy of the base checkpoint's own understanding, scored by the detector.
* `rl-off`: the same RL for the same seconds without thoughts, from the same SFT checkpoint.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import Field

from thinkdraw.benchmarks.lab import LabReport, compare, evaluate_lab
from thinkdraw.benchmarks.understanding import agreement_on_drawn
from thinkdraw.config import StrictModel
from thinkdraw.lab.prompts import prompt_set
from thinkdraw.policies import load_policy
from thinkdraw.recipes import quickstart
from thinkdraw.recipes.quickstart import EvaluationSettings, QuickstartConfig
from thinkdraw.recipes.training import policy_path
from thinkdraw.runtime.files import atomic_write_json, atomic_write_text
from thinkdraw.runtime.tracking import MetricsLog
from thinkdraw.types import Sampling


class EvidenceConfig(StrictModel):
    recipe: str = "evidence"
    out: Path = Path("runs/evidence")
    policy: str = "lab"
    evaluation: EvaluationSettings = EvaluationSettings(questions_per_type=0)
    sft: list[str] = Field(default=[], description="Overrides of lab_sft.yaml in every part.")
    grpo: list[str] = Field(default=[], description="Overrides of lab_grpo.yaml in every part.")


def run(config: EvidenceConfig, say: Callable[[str], None] = print) -> Path:
    """Run what is not finished yet, and write summary.json and table.md."""
    main = _quickstart(config, 0, say)
    second = _quickstart(config, 1, say)
    seconds = MetricsLog.read(main / "grpo" / "metrics.jsonl")[-1]["seconds"]
    sft = str(main / "sft")

    say(f"sft-longer: SFT for {seconds:.0f} s more")
    quickstart.train(
        "lab_sft", config.out / "sft_longer", sft, 0, [*config.sft, "max_steps=1000000", f"max_seconds={seconds}", "data.seed=1"]
    )  # fmt: skip
    say("rl-judge: RL from lab-judge alone")
    quickstart.train("lab_grpo", config.out / "rl_judge", sft, 0, [*config.grpo, "reward.name=lab-judge"])
    say("rl-off: RL without thoughts")
    quickstart.train(
        "lab_grpo", config.out / "rl_off", sft, 0, [*config.grpo, "sampling.thought=off", "max_steps=1000000", f"max_seconds={seconds}"]
    )  # fmt: skip

    folders = {
        "base": main / "eval/base",
        "sft": main / "eval/sft",
        "rl": main / "eval/rl",
        "rl (seed 1)": second / "eval/rl",
    }
    reports: dict[str, Any] = {
        name: json.loads((folder / "summary.json").read_text()) for name, folder in folders.items()
    }
    for name, thought in (("sft_longer", "inline"), ("rl_judge", "inline"), ("rl_off", "off")):
        report = _evaluate(config, config.out / name, config.out / "eval" / name, thought)
        label = name.replace("_", "-")
        folders[label], reports[label] = config.out / "eval" / name, report.summary()
    pairs = {
        "rl-sft": ("rl", "sft"),
        "rl-sft (seed 1)": ("rl (seed 1)", second / "eval/sft"),
        "rl-sft-longer": ("rl", "sft-longer"),
        "rl-judge-sft": ("rl-judge", "sft"),
        "rl-rl-off": ("rl", "rl-off"),
    }
    difference = {}
    for name, (a, b) in pairs.items():
        found = compare(folders[a], folders[b] if isinstance(b, str) else b)
        difference[name] = {"value": found.value, "low": found.low, "high": found.high}
    agreement = {
        name: _agreement(config, str(path))
        for name, path in (("sft", main / "sft"), ("rl-judge", config.out / "rl_judge"))
    }
    keys = ("score", "low", "high", "per_task", "pictures", "prompts")
    stages = {name: {k: report[k] for k in keys} for name, report in reports.items()}
    summary = {"stages": stages, "difference": difference, "judge_agreement": agreement, "rl_seconds": seconds}
    atomic_write_json(config.out / "summary.json", summary)
    atomic_write_text(config.out / "table.md", table(summary))
    return config.out


def _quickstart(config: EvidenceConfig, seed: int, say: Callable[[str], None]) -> Path:
    out = config.out / f"seed_{seed}"
    settings = QuickstartConfig(
        out=out, policy=config.policy, seed=seed, sft=config.sft, grpo=config.grpo, evaluation=config.evaluation
    )  # fmt: skip
    return out if (out / "summary.json").is_file() else quickstart.run(settings, say)


def _evaluate(config: EvidenceConfig, policy: Path, folder: Path, thought: str) -> LabReport:
    asked = config.evaluation
    sampling = Sampling.model_validate(asked.sampling.model_dump() | {"thought": thought})
    loaded = load_policy(policy_path(str(policy)), precision="bf16")
    return evaluate_lab(loaded, asked.family, "test", asked.prompts, asked.samples, sampling, asked.seed, folder)


def _agreement(config: EvidenceConfig, policy: str) -> dict[str, float]:
    """AUROC of the judge's P(yes) against the detector on pictures that `policy` draws for validation prompts."""
    judge = load_policy(policy_path(config.policy), precision="bf16")
    prompts = [e.prompt for e in prompt_set(config.evaluation.family, "validation", 96)]
    drawn = load_policy(policy_path(policy), precision="bf16").sample(prompts, config.evaluation.sampling)
    assert drawn.pictures is not None
    found = agreement_on_drawn(judge, drawn.pictures, prompts)
    return {"auroc": found.auroc, "low": found.low, "high": found.high, "questions": found.questions}


def table(summary: dict[str, Any]) -> str:
    """Markdown: a row per policy, then the paired differences in points."""
    lines = ["| policy | score | 95 % interval | pictures |", "|---|---|---|---|"]
    for name, s in summary["stages"].items():
        lines.append(f"| {name} | {s['score']:.3f} | {s['low']:.3f} – {s['high']:.3f} | {s['pictures']} |")
    lines += ["", "| paired difference | points | 95 % interval |", "|---|---|---|"]
    for name, d in summary["difference"].items():
        lines.append(f"| {name} | {100 * d['value']:+.1f} | {100 * d['low']:+.1f} – {100 * d['high']:+.1f} |")
    lines += [
        "",
        "| judge's AUROC against the detector, on pictures drawn by | AUROC | 95 % interval |",
        "|---|---|---|",
    ]
    for name, a in summary["judge_agreement"].items():
        lines.append(f"| {name} | {a['auroc']:.3f} | {a['low']:.3f} – {a['high']:.3f} |")
    return "\n".join(lines) + "\n"
