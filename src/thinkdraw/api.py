"""The seven functions that a script needs; the command line calls the same code."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from thinkdraw.benchmarks.lab.benchmark import LabReport, Split, evaluate_lab
from thinkdraw.lab.prompts import family_of, prompt_set
from thinkdraw.lab.wording import PromptSplit
from thinkdraw.policies.drawing import choose_drawing
from thinkdraw.policies.opening import policy_path
from thinkdraw.recipes.catalog import read_config, run_config
from thinkdraw.report import write_report
from thinkdraw.rewards.opening import open_reward
from thinkdraw.runtime.json_types import JsonMapping
from thinkdraw.studies.evaluate import Evaluation
from thinkdraw.studies.evaluate import run as run_evaluation
from thinkdraw.studies.evaluate_open import EvaluateConfig
from thinkdraw.training.data import DataSettings
from thinkdraw.training.data import load_prompts as read_prompts
from thinkdraw.types import Policy, Prompt, Reward, Rollouts, SamplingOverrides


def load_policy(path: str = "lab", **options: Any) -> Policy:
    """Load a policy.

    path: `lab` (the shipped checkpoint), a checkpoint folder, a run folder (its best checkpoint), or a Hugging Face model id.
    options: device, dtype, precision, lora, …; see `policies.load_policy`. Raises UserError.
    """
    from thinkdraw.policies import load_policy as load

    return load(policy_path(path), **options)


def load_prompts(
    source: str = "lab-geneval", split: PromptSplit = "train", count: int = 64, seed: int = 0
) -> list[Prompt]:
    """Read prompts.

    source: `lab-geneval`, `lab-compbench`, `lab-dense`, or a .txt or .jsonl file, of which all prompts are read: split, count
    and seed are for the lab's.
    """
    if family := family_of(source):
        return [e.prompt for e in prompt_set(family, split, count, seed)]
    return read_prompts(DataSettings(source=source))


def load_reward(name: str = "lab-detector", **settings: Any) -> Reward:
    """Open a reward by its registry name or `pkg.mod:Class`.

    settings: what it is made with. `lab-judge` asks the lab checkpoint unless there is a setting `questioner`.
    """
    return open_reward(name, **settings)


def rollout(
    policy: Policy, prompts: Sequence[Prompt | str], *, group_size: int = 1, seed: int = 0, **sampling: Any
) -> Rollouts:
    """Sample thoughts and pictures, `group_size` of each prompt.

    sampling: fields of `Sampling` (thought, guidance_scale, temperature, …); the others are as the policy was trained to draw.
    """
    typed_prompts = [p if isinstance(p, Prompt) else Prompt(p, id=str(i)) for i, p in enumerate(prompts)]
    how = choose_drawing(policy, SamplingOverrides(**sampling)).sampling
    return policy.sample(typed_prompts, how, group_size=group_size, seed=seed)


def evaluate(
    policy: Policy, benchmark: str = "lab-geneval", *, split: Split = "test", count: int | None = None,
    samples: int | None = None, seed: int = 0, folder: Path | str | None = None, prompts: Path | str | None = None,
    judges: Mapping[str, str | JsonMapping] | None = None, settings: JsonMapping | None = None,
    questions_per_type: int = 0, **sampling: Any,
) -> LabReport | Evaluation:  # fmt: skip
    """Draw a benchmark's prompts and judge the pictures: scores with 95 % intervals.

    `lab-geneval`, `lab-compbench` and `lab-dense` return a `LabReport`, judged by the exact detector. By default they draw 384
    prompts 4 times each, and write into `folder` if there is one. Every other benchmark, and these with judges or settings,
    return an `Evaluation`. By default they draw all prompts in the official number, and write into `folder` or
    runs/eval/REVISION.
    prompts: the benchmark's official file. judges: role → a judge's name, or a mapping of that name and its settings.
    settings: the benchmark's own. questions_per_type: how many of the lab's questions about pictures of each type the policy
    answers too. Raises UserError.
    """
    overrides = SamplingOverrides(**sampling)
    if (family := family_of(benchmark)) and not (judges or settings):
        return evaluate_lab(
            policy, family, split, count or 384, samples or 4, choose_drawing(policy, overrides).sampling, seed, folder,
            questions_per_type=questions_per_type,
        )  # fmt: skip
    named = {role: {"name": judge} if isinstance(judge, str) else dict(judge) for role, judge in (judges or {}).items()}
    config = EvaluateConfig(
        benchmarks=[benchmark], policy=policy.revision, prompts=Path(prompts) if prompts else None, judges=named,
        settings=dict(settings or {}), split=split, count=count, samples=samples, sampling=overrides, seed=seed,
        out=Path(folder) if folder else None, questions_per_type=questions_per_type, latency_pictures=0,
    )  # fmt: skip
    return run_evaluation(config, policy)[0]


def train(config: str | Path, *overrides: str) -> Path:
    """Run a recipe and return the run folder.

    config: a shipped configuration's name or a YAML file. overrides: `key.sub=value`. Raises UserError.
    """
    return run_config(read_config(config, overrides))


def report(run_folder: Path | str, output: Path | str | None = None) -> Path:
    """Write a run folder's self-contained report.html."""
    return write_report(Path(run_folder), Path(output) if output else None)
