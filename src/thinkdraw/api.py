"""The seven functions that a script needs; the command line is made of the same."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from thinkdraw.benchmarks.lab import LabReport, evaluate_lab
from thinkdraw.errors import UserError
from thinkdraw.lab.prompts import SPECS, prompt_set
from thinkdraw.policies.janus import JanusPolicy
from thinkdraw.recipes.catalog import read_config, run_config
from thinkdraw.recipes.inputs import DataSettings
from thinkdraw.recipes.inputs import load_prompts as read_prompts
from thinkdraw.recipes.rewards import open_reward
from thinkdraw.recipes.training import policy_path
from thinkdraw.report import write_report
from thinkdraw.types import Prompt, Reward, Rollouts, Sampling


def load_policy(path: str = "lab", **options: Any) -> JanusPolicy:
    """`lab` (the shipped checkpoint), a checkpoint folder, a run folder (its best checkpoint), or a Hugging Face model id.

    options: device, dtype, precision, lora, …; see `policies.load_policy`. Raises UserError.
    """
    from thinkdraw.policies import load_policy as load

    return load(policy_path(path), **options)


def load_prompts(source: str = "lab-geneval", split: str = "train", count: int = 64, seed: int = 0) -> list[Prompt]:
    """Prompts of the lab (`lab-geneval`, `lab-compbench`, `lab-dense`), or of a .txt or .jsonl file (all of it)."""
    if source.startswith("lab-") and source[4:] in SPECS:
        return [e.prompt for e in prompt_set(source[4:], split, count, seed)]  # pyright: ignore[reportArgumentType]
    return read_prompts(DataSettings(source=source))


def load_reward(name: str = "lab-detector", **settings: Any) -> Reward:
    """A reward by its registry name or `pkg.mod:Class`. `lab-judge` asks the lab checkpoint unless a questioner is given."""
    return open_reward(name, **settings)


def rollout(
    policy: JanusPolicy, prompts: Sequence[Prompt | str], *, group_size: int = 1, seed: int = 0, **sampling: Any
) -> Rollouts:
    """Sample thoughts and pictures. sampling: fields of `Sampling` (thought, guidance_scale, temperature, …)."""
    wanted = [p if isinstance(p, Prompt) else Prompt(p, id=str(i)) for i, p in enumerate(prompts)]
    return policy.sample(wanted, Sampling(**sampling), group_size=group_size, seed=seed)


def evaluate(
    policy: JanusPolicy, benchmark: str = "lab-geneval", *, split: str = "test", count: int = 384, samples: int = 4, seed: int = 0,
    folder: Path | str | None = None, **sampling: Any,
) -> LabReport:  # fmt: skip
    """Draw a benchmark's prompts and judge the pictures: scores per task with 95 % intervals."""
    if not benchmark.startswith("lab-") or benchmark[4:] not in SPECS:
        raise UserError(f"benchmark={benchmark!r}: known are {', '.join('lab-' + f for f in SPECS)}.")
    return evaluate_lab(policy, benchmark[4:], split, count, samples, Sampling(**sampling), seed, folder)  # pyright: ignore[reportArgumentType]


def train(config: str | Path, *overrides: str) -> Path:
    """Run a recipe from a shipped configuration's name or a YAML file, with `key.sub=value` overrides; returns the run folder."""
    return run_config(read_config(config, overrides))


def report(run_folder: Path | str, output: Path | str | None = None) -> Path:
    """Write a run folder's self-contained report.html."""
    return write_report(Path(run_folder), Path(output) if output else None)
