"""The quickstart: base → SFT → GRPO, each stage judged on the same test prompts.

    thinkdraw quickstart

ReasonGen-R1's pipeline (arXiv 2505.24875) at a size for two CPU cores. Stopped in any stage, it goes on where it was.
"""

import time
from collections.abc import Callable
from pathlib import Path

from pydantic import Field

from thinkdraw.benchmarks.base import null_for_nan
from thinkdraw.benchmarks.lab.benchmark import LabReport, compare, evaluate_lab
from thinkdraw.config import StrictModel, save_config
from thinkdraw.lab.prompts import Family
from thinkdraw.policies.drawing import DRAWING, OVERRIDES, choose_drawing
from thinkdraw.policies.opening import load_trained
from thinkdraw.recipes.catalog import read_config, run_config
from thinkdraw.runtime.files import atomic_write_json, only_writer_of_out
from thinkdraw.runtime.formats.sealed import write_sealed
from thinkdraw.runtime.json_types import JsonObject
from thinkdraw.runtime.tracking import PeakMemory, environment
from thinkdraw.types import Policy, SamplingOverrides

STAGES = ("base", "sft", "rl")


class EvaluationSettings(StrictModel):
    """The same for every stage: prompts, seeds, thought format, guidance."""

    family: Family = Field(
        default="geneval", description="Family of the lab's test prompts: geneval, compbench, dense or reasoning."
    )
    prompts: int = Field(
        default=384, ge=6, description="How many test prompts. More make the intervals narrower and take longer."
    )
    samples: int = Field(default=4, ge=1, description="Pictures drawn for each prompt.")
    drawing: str | None = Field(default=None, description=DRAWING)
    sampling: SamplingOverrides = Field(default=SamplingOverrides(), description=OVERRIDES)
    questions_per_type: int = Field(
        default=40,
        ge=0,
        multiple_of=2,
        description="Understanding questions of each type, half with yes for an answer; 0 asks none. "
        "compare and sweep ask none, whatever it says.",
    )
    seed: int = Field(default=0, ge=0, description="Seed of the pictures; the same for everything that is compared.")


class QuickstartConfig(StrictModel):
    """Settings of the quickstart."""

    recipe: str = Field(
        default="quickstart", description="Names the recipe that this configuration is for; always `quickstart`."
    )
    out: Path = Field(
        default=Path("runs/quickstart"),
        description="Folder of both runs, evaluations and report; a stopped quickstart goes on there.",
    )
    policy: str = Field(
        default="lab",
        description="The base policy: checkpoint folder, run folder (its best checkpoint), model id, or `lab`.",
    )
    sft: list[str] = Field(default=[], description="Settings of lab_sft to change, as key.sub=value.")
    grpo: list[str] = Field(default=[], description="Settings of lab_grpo to change, as key.sub=value.")
    evaluation: EvaluationSettings = Field(
        default=EvaluationSettings(),
        description="Test prompts, pictures and seeds that base, SFT and RL are judged with.",
    )
    precision: str = Field(default="bf16", description="Type of the forward pass in the evaluations: fp32 or bf16.")
    seed: int = Field(
        default=0, ge=0, description="Seed of both trainings; test prompts and picture seeds stay the same."
    )


@only_writer_of_out
def run(config: QuickstartConfig, say: Callable[[str], None] = print) -> Path:
    """Train and evaluate all stages; return the folder that holds summary.json.

    say: prints a line per stage.
    """
    began, memory = time.monotonic(), PeakMemory()
    save_config(config, config.out / "config.yaml")
    atomic_write_json(config.out / "environment.json", environment())
    policies = {"base": config.policy, "sft": str(config.out / "sft"), "rl": str(config.out / "grpo")}
    reports: dict[str, LabReport] = {}
    for stage in STAGES:
        if stage == "sft":
            say("sft: learning to think from written rationales")
            train("lab_sft", config.out / "sft", policies["base"], config.seed, config.sft)
        if stage == "rl":
            say("rl: GRPO, the detector as judge")
            train("lab_grpo", config.out / "grpo", policies["sft"], config.seed, config.grpo)
        policy = load_trained(policies[stage], config.precision)
        reports[stage] = evaluate_stage(policy, config, stage)
        score = reports[stage].score
        say(f"{stage}: {score.value:.3f} [{score.low:.3f}, {score.high:.3f}] after {time.monotonic() - began:.0f} s")
    folder = config.out / "eval"
    summary = summarise(
        reports, {"rl-sft": ("rl", "sft"), "sft-base": ("sft", "base"), "rl-base": ("rl", "base")}, folder
    )
    summary |= {
        "seconds": round(time.monotonic() - began, 1),
        "peak_memory_gb": round(memory.peak_gb(), 2),
        "seed": config.seed,
    }
    write_sealed(config.out / "summary.json", summary)
    return config.out


def train(name: str, out: Path, policy: str, seed: int, overrides: list[str]) -> Path:
    """Train by a shipped configuration, or go on with it; return the run folder."""
    return run_config(read_config(name, [f"out={out}", f"policy={policy}", f"seed={seed}", *overrides]))


def evaluate_stage(policy: Policy, config: QuickstartConfig, stage: str) -> LabReport:
    """Draw and judge the test prompts by a stage's policy."""
    settings = config.evaluation
    sampling = choose_drawing(policy, settings.sampling, settings.drawing).sampling
    return evaluate_lab(
        policy, settings.family, "test", settings.prompts, settings.samples, sampling, settings.seed, config.out / "eval" / stage,
        questions_per_type=settings.questions_per_type,
    )  # fmt: skip


def summarise(reports: dict[str, LabReport], pairs: dict[str, tuple[str, str]], folder: Path) -> JsonObject:
    """Collect the stages' scores and paired differences.

    pairs: name of a difference → (stage, minus stage).
    """
    keys = ("score", "low", "high", "per_task", "pictures", "prompts", "understanding", "diversity")
    stages = {name: {k: v for k, v in report.summary().items() if k in keys} for name, report in reports.items()}
    return {
        "stages": stages,
        "difference": differences({name: (folder / a, folder / b) for name, (a, b) in pairs.items()}),
    }


def differences(pairs: dict[str, tuple[Path, Path]]) -> dict[str, dict[str, float]]:
    """Compute paired differences of evaluations.

    pairs: name of a difference → (folder, minus folder).
    """
    compared = {name: compare(*folders) for name, folders in pairs.items()}
    return null_for_nan({name: {"value": d.value, "low": d.low, "high": d.high} for name, d in compared.items()})
