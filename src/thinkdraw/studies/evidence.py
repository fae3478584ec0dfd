"""The controls behind the quickstart's claim, judged on the same prompts.

    thinkdraw evidence

* `rl` of a second seed: is the gain luck?
* `sft-longer`: SFT continued for RL's seconds. Does RL do more than training longer would?
* `rl-judge`: RL from `lab-judge` alone, a frozen copy of the base checkpoint's own understanding, scored by the detector.
* `rl-off`: the same RL for the same seconds without thoughts, from the same SFT checkpoint.

Each policy is also judged out of domain: held-out pairs, counts, templates and relation wordings.
"""

import math
from collections.abc import Callable
from pathlib import Path

from pydantic import Field

from thinkdraw.benchmarks.lab.benchmark import Split, evaluate_lab
from thinkdraw.benchmarks.lab.understanding import agreement_on_drawn
from thinkdraw.config import StrictModel
from thinkdraw.lab.prompts import prompt_set
from thinkdraw.policies.drawing import choose_drawing
from thinkdraw.policies.opening import load_trained
from thinkdraw.runtime.files import atomic_write_json, atomic_write_text, only_writer_of_out
from thinkdraw.runtime.json_types import JsonObject
from thinkdraw.runtime.tracking import MetricsLog
from thinkdraw.studies import quickstart
from thinkdraw.studies.quickstart import EvaluationSettings, QuickstartConfig, differences

SPLITS: tuple[Split, ...] = ("test", "ood")


class EvidenceConfig(StrictModel):
    """Settings of the evidence: both quickstarts, and their controls."""

    recipe: str = Field(
        default="evidence", description="Names the recipe that this configuration is for; always `evidence`."
    )
    out: Path = Field(default=Path("runs/evidence"), description="Folder of the runs; finished ones are not run again.")
    policy: str = Field(
        default="lab",
        description="The base policy of all parts: checkpoint folder, run folder (its best checkpoint), model "
        "id, or `lab`.",
    )
    evaluation: EvaluationSettings = Field(
        default=EvaluationSettings(questions_per_type=0),
        description="Test prompts, pictures and seeds that every part is judged with.",
    )
    out_of_domain_prompts: int = Field(
        default=192,
        ge=6,
        description="Out-of-domain prompts that every part is judged with besides, with evaluation.samples "
        "pictures of each.",
    )
    agreement_prompts: int = Field(
        default=96, ge=1, description="Prompts drawn once each, on which lab-judge is compared with the exact detector."
    )
    sft: list[str] = Field(default=[], description="Settings of lab_sft that every part changes, as key.sub=value.")
    grpo: list[str] = Field(default=[], description="Settings of lab_grpo that every part changes, as key.sub=value.")


PAIRS = {
    "rl − sft": ("rl", "sft"),
    "rl − sft, seed 1": ("rl, seed 1", "sft, seed 1"),
    "rl − sft-longer": ("rl", "sft-longer"),
    "rl-judge − sft": ("rl-judge", "sft"),
    "rl − rl-off": ("rl", "rl-off"),
}


@only_writer_of_out
def run(config: EvidenceConfig, say: Callable[[str], None] = print) -> Path:
    """Run what is not finished yet, and write summary.json and table.md."""
    main, second = (_quickstart(config, seed, say) for seed in (0, 1))
    seconds = MetricsLog.read(main / "grpo" / "metrics.jsonl")[-1]["seconds"]
    as_long = ["max_steps=1000000", f"max_seconds={seconds}"]
    controls = {
        "sft-longer": ("lab_sft", [*config.sft, *as_long, "data.seed=1"]),
        "rl-judge": ("lab_grpo", [*config.grpo, "reward.name=lab-judge"]),
        "rl-off": ("lab_grpo", [*config.grpo, *as_long, "sampling.thought=off"]),
    }
    policies = {"base": Path(config.policy), "sft": main / "sft", "rl": main / "grpo"}
    policies |= {"sft, seed 1": second / "sft", "rl, seed 1": second / "grpo"}
    for name, (recipe, overrides) in controls.items():
        say(
            f"{name}: {recipe}, as long as RL took ({seconds:.0f} s)"
            if as_long[1] in overrides
            else f"{name}: {recipe}"
        )
        policies[name] = quickstart.train(recipe, config.out / name, str(main / "sft"), 0, overrides)

    stages = {}
    folders: dict[str, dict[Split, Path]] = {}
    for name, path in policies.items():
        folders[name] = {split: config.out / "eval" / split / name.replace(", ", "_") for split in SPLITS}
        scores = {split: _score(config, path, split, folder) for split, folder in folders[name].items()}
        stages[name] = scores["test"] | {"ood": scores["ood"]}
        say(f"{name}: {scores['test']['score']:.3f} in domain, {scores['ood']['score']:.3f} out of domain")
    summary: JsonObject = {"stages": stages, "rl_seconds": seconds}
    for split, key in zip(SPLITS, ("difference", "difference_ood"), strict=True):
        summary[key] = differences({n: (folders[a][split], folders[b][split]) for n, (a, b) in PAIRS.items()})
    summary["judge_agreement"] = {
        name: _agreement(config, policies[name]) for name in ("base", "sft", "rl", "rl-judge")
    }
    atomic_write_json(config.out / "summary.json", summary)
    atomic_write_text(config.out / "table.md", table(summary))
    return config.out


def _quickstart(config: EvidenceConfig, seed: int, say: Callable[[str], None]) -> Path:
    out = config.out / f"seed_{seed}"
    settings = QuickstartConfig(
        out=out, policy=config.policy, seed=seed, sft=config.sft, grpo=config.grpo, evaluation=config.evaluation
    )  # fmt: skip
    return out if (out / "summary.json").is_file() else quickstart.run(settings, say)


def _score(config: EvidenceConfig, path: Path, split: Split, folder: Path) -> JsonObject:
    settings, policy = config.evaluation, load_trained(path)
    count = settings.prompts if split == "test" else config.out_of_domain_prompts
    sampling = choose_drawing(policy, settings.sampling, settings.drawing, of_several=True).sampling
    report = evaluate_lab(
        policy, settings.family, split, count, settings.samples, sampling, settings.seed, folder
    ).summary()
    return {key: report[key] for key in ("score", "low", "high", "per_task", "pictures", "prompts")}


def _agreement(config: EvidenceConfig, policy: Path) -> dict[str, float | None]:
    """Measure the judge's AUROC against the detector, on pictures that `policy` draws.

    The pictures are of validation prompts; the judge's answer is P(yes).
    None where the detector finds every fact true, or none.
    """
    prompts = [e.prompt for e in prompt_set(config.evaluation.family, "validation", config.agreement_prompts)]
    drawer = load_trained(policy)
    drawn = drawer.sample(
        prompts, choose_drawing(drawer, config.evaluation.sampling, config.evaluation.drawing, of_several=True).sampling
    )
    assert drawn.pictures is not None
    agreement = agreement_on_drawn(load_trained(config.policy), drawn.pictures, prompts)
    numbers = {"auroc": agreement.auroc, "low": agreement.low, "high": agreement.high}
    return {n: None if math.isnan(x) else x for n, x in numbers.items()} | {"questions": agreement.questions}


def table(summary: JsonObject) -> str:
    """Make the Markdown tables: policies, paired differences in points, and the judge."""
    lines = ["| policy | in domain | 95 % interval | out of domain | 95 % interval |", "|---|---|---|---|---|"]
    for name, s in summary["stages"].items():
        o = s["ood"]
        cells = (
            f"{s['score']:.3f}",
            f"{s['low']:.3f} – {s['high']:.3f}",
            f"{o['score']:.3f}",
            f"{o['low']:.3f} – {o['high']:.3f}",
        )
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += [
        "",
        "| paired difference, points | in domain | 95 % interval | out of domain | 95 % interval |",
        "|---|---|---|---|---|",
    ]
    for name, d in summary["difference"].items():
        both = [[100 * x[k] for k in ("value", "low", "high")] for x in (d, summary["difference_ood"][name])]
        cells = " | ".join(f"{value:+.1f} | {low:+.1f} – {high:+.1f}" for value, low, high in both)
        lines.append(f"| {name} | {cells} |")
    lines += [
        "",
        "| judge's AUROC against the detector, on pictures drawn by | AUROC | 95 % interval |",
        "|---|---|---|",
    ]
    for name, a in summary["judge_agreement"].items():
        known = a["auroc"] is not None
        lines.append(
            f"| {name} | " + (f"{a['auroc']:.3f} | {a['low']:.3f} – {a['high']:.3f} |" if known else "– | – |")
        )
    return "\n".join(lines) + "\n"
