"""An evaluation's benchmarks, prompts and judges, opened and checked."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import Field

from thinkdraw.benchmarks import benchmark_class, load_benchmark
from thinkdraw.benchmarks.base import Benchmark, ChecksPrompts, judge_facts
from thinkdraw.benchmarks.compbench.lab import LabAsker
from thinkdraw.benchmarks.dpg.lab import with_categories
from thinkdraw.benchmarks.lab.benchmark import Split
from thinkdraw.benchmarks.own.benchmark import OwnPrompts
from thinkdraw.benchmarks.settings import git_hash_of, sha256_of_prompts
from thinkdraw.config import StrictModel
from thinkdraw.errors import UserError
from thinkdraw.lab.prompts import SPECS, family_of, prompt_set
from thinkdraw.picture_reader import PictureReaderConfig
from thinkdraw.policies.drawing import DRAWING, OVERRIDES
from thinkdraw.rewards.opening import RewardSettings, on_device, open_judge
from thinkdraw.runtime.json_types import JsonMapping, JsonObject
from thinkdraw.studies.own_pictures import OwnPictures, own_pictures
from thinkdraw.training.known_tests import PROMPTS_VARIABLE
from thinkdraw.types import Prompt, SamplingOverrides

NO_JUDGE = "none"
OBJECT_NAMES = "object_names.txt"


class EvaluateConfig(StrictModel):
    """Settings of an evaluation."""

    benchmarks: list[str] = Field(
        min_length=1,
        description="Benchmarks to run: names of `thinkdraw list benchmarks`, or pkg.mod:Class of your own.",
    )
    policy: str | None = Field(
        default=None,
        description="The policy that draws the pictures: checkpoint folder, run folder (its best checkpoint), "
        "model id, or `lab`. null judges the pictures of `images`.",
    )
    images: Path | None = Field(
        default=None,
        description="Folder of finished pictures in place of a policy: in the benchmark's official layout, or, with "
        "`reward`, your own with captions beside them.",
    )
    prompts: Path | None = Field(
        default=None,
        description="The benchmark's official prompt file, or a folder that holds it; null looks below "
        "$THINKDRAW_BENCHMARKS. With `reward`: prompts of your own, in any form that training reads.",
    )
    reward: RewardSettings | None = Field(
        default=None,
        description="The reward that judges prompts or pictures of your own (benchmark `own`); null judges none.",
    )
    judges: dict[str, JsonObject] = Field(
        default={},
        description="Other judges than the usual ones, {role: {name: …, and its settings}}; name none leaves a "
        "role out.",
    )
    settings: JsonObject = Field(
        default={},
        description="What the benchmark's class is made with; `thinkdraw explain benchmark.NAME` lists its settings.",
    )
    split: str = Field(
        default="test", description="Split of the lab's prompts: test, ood (out of domain) or validation."
    )
    count: int | None = Field(
        default=None,
        ge=1,
        description="How many prompts, spread evenly over the file; null is all, and 384 for the lab.",
    )
    samples: int | None = Field(
        default=None, ge=1, description="Pictures drawn for each prompt; null is the benchmark's official number."
    )
    drawing: str | None = Field(default=None, description=DRAWING)
    sampling: SamplingOverrides = Field(default=SamplingOverrides(), description=OVERRIDES)
    seed: int = Field(default=0, ge=0, description="Seed of the pictures; the same seed draws the same ones.")
    out: Path | None = Field(
        default=None,
        description="Folder of the results; null is runs/eval/ and the name of the checkpoint or picture folder.",
    )
    export_official: Path | None = Field(
        default=None,
        description="Folder that also gets the pictures in the layout of the benchmark's original scorer; null "
        "writes none.",
    )
    device: str = Field(
        default="auto",
        description="Where the network runs: auto, cpu, cuda or mps. auto takes an accelerator where there is one.",
    )
    precision: str = Field(default="bf16", description="Type of the forward pass that draws: fp32 or bf16.")
    chunk: int = Field(default=64, ge=1, description="Pictures drawn at once. Fewer need less memory.")
    prompts_at_once: int = Field(
        default=8, ge=1, description="Prompts whose pictures are judged at once. Fewer need less memory."
    )
    max_no_verdict_frac: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="Stop if the judges have no verdict on more than this share of the pictures.",
    )
    latency_pictures: int = Field(
        default=4,
        ge=0,
        description="Pictures drawn one by one, with and without a thought, to measure how long one takes; 0 "
        "measures nothing.",
    )
    questions_per_type: int = Field(
        default=16,
        ge=0,
        multiple_of=2,
        description="Questions of each type from the lab's understanding set, half with yes for an answer; 0 "
        "asks none.",
    )
    pictures: PictureReaderConfig = Field(
        default=PictureReaderConfig(), description="How picture files of `images` and `vqa` are read."
    )
    vqa: Path | None = Field(
        default=None,
        description="File of yes/no and multiple-choice questions about pictures, one JSON object a line; null "
        "asks none.",
    )


@dataclass(frozen=True)
class LabSuite:
    """A family of the lab's prompts for a benchmark's class, with the lab's judges.

    judges: role → name of the usual judge. settings: of the benchmark's class.
    """

    benchmark: str
    judges: Mapping[str, str]
    settings: JsonMapping = field(default_factory=dict)


LAB_SUITES = {
    "lab-geneval": LabSuite("geneval", {"detector": "lab-detector", "colors": NO_JUDGE}),
    "lab-compbench": LabSuite(
        "compbench",
        {"questioner": "policy", "detector": "lab-detector", "depth": NO_JUDGE, "scorer": NO_JUDGE},
        {"asker": LabAsker()},
    ),
    "lab-dense": LabSuite("dpg", {"questioner": "policy"}, {"mode": "fixed"}),
}
LAB_COUNT = 384


@dataclass(frozen=True)
class OpenBenchmark:
    """A benchmark with its judges and prompts.

    prompts: index in the official order → prompt, of those that are evaluated. which: their indices, or "all".
    file, sha256, git_hash: where the prompts came from. judges: role → facts about its judge, for the summary.
    pictures: the user's own finished pictures, found already; None for all others.
    """

    benchmark: Benchmark
    all_prompts: list[Prompt]
    prompts: dict[int, Prompt]
    which: str | list[int]
    samples: int
    file: str
    sha256: str
    git_hash: str
    judges: JsonObject
    pictures: OwnPictures | None = None

    @property
    def folder_name(self) -> str:
        """Name the folder of its results; own prompts are told apart by their file."""
        name = self.benchmark.name
        return f"{name}-{Path(self.file).stem}" if isinstance(self.benchmark, OwnPrompts) else name


def open_benchmark(name: str, config: EvaluateConfig) -> OpenBenchmark:
    """Open a benchmark with its prompts and judges.

    Raises UserError for an unknown name, judge or setting, and for prompts that cannot be read or judged.
    """
    if name == OwnPrompts.name:
        return _open_own(config)
    suite = LAB_SUITES.get(name)
    kind = benchmark_class(suite.benchmark if suite else name)
    path = None if suite else prompt_path(kind, config.prompts, several=len(config.benchmarks) > 1)
    _check_roles(config)
    usual = suite.judges if suite else kind.roles
    judges = {
        role: _open(role, judge, config.judges.get(role, {}), path, config.device) for role, judge in usual.items()
    }
    settings = {**(suite.settings if suite else {}), **config.settings}
    benchmark = load_benchmark(suite.benchmark if suite else name, **judges, **settings)
    if path is None:
        prompts = lab_prompts(name, config.split, config.count or LAB_COUNT)
        file, sha256, git_hash = f"{name} {config.split}", sha256_of_prompts(prompts), ""
        benchmark.name, benchmark.num_prompts, benchmark.official_sha256 = name, len(prompts), (sha256,)
    else:
        prompts, file, git_hash = benchmark.prompts(path), path.name, git_hash_of(path)
        sha256 = sha256_of_prompts(prompts, path)
    chosen = _chosen(len(prompts), config.count)
    if isinstance(benchmark, ChecksPrompts):
        benchmark.check_prompts([prompts[i] for i in chosen])
    return OpenBenchmark(
        benchmark, prompts, {i: prompts[i] for i in chosen}, "all" if len(chosen) == len(prompts) else list(chosen),
        config.samples or benchmark.pictures_per_prompt, file, sha256, git_hash,
        {role: judge_facts(judge) for role, judge in judges.items() if judge is not None},
    )  # fmt: skip


def _chosen(num_prompts: int, count: int | None) -> Sequence[int]:
    """Choose the prompts to evaluate, spread evenly over all."""
    if count is None or count >= num_prompts:
        return range(num_prompts)
    return [i * num_prompts // count for i in range(count)]


def _open_own(config: EvaluateConfig) -> OpenBenchmark:
    """Open the user's own prompts, or pictures with captions, and their reward.

    Raises UserError where there are neither, and for prompts that the reward cannot judge.
    """
    named = {"reward": config.reward.model_dump()} if config.reward else {}
    benchmark = load_benchmark(OwnPrompts.name, **{**config.settings, **named})
    assert isinstance(benchmark, OwnPrompts)
    path = config.prompts or benchmark.prompts_file
    if path is not None and path.is_dir() and config.images is None and not any(path.iterdir()):
        raise UserError(f"prompts={path} is an empty folder. Give a file of prompts, or a folder that holds one.")
    pictures = None
    if config.images is not None:
        pictures = own_pictures(config.images, path, output_folder(config) / f"{benchmark.name}-given")
        prompts, file = pictures.prompts, path.name if path else config.images.name
    elif path is not None:
        prompts, file = benchmark.prompts(path), path.name
    else:
        raise UserError("give prompts of your own, prompts=FILE, or pictures with captions beside them, images=FOLDER.")
    chosen = _chosen(len(prompts), config.count)
    benchmark.check_prompts([prompts[i] for i in chosen])
    samples = config.samples or (pictures.samples if pictures else benchmark.pictures_per_prompt)
    benchmark.num_prompts, benchmark.pictures_per_prompt = len(prompts), samples
    return OpenBenchmark(
        benchmark, prompts, {i: prompts[i] for i in chosen}, "all" if len(chosen) == len(prompts) else list(chosen),
        samples, file, sha256_of_prompts(prompts, path), "", benchmark.judge_facts(), pictures,
    )  # fmt: skip


def prompt_path(benchmark: Any, prompts: Path | None, several: bool = False) -> Path:
    """Find the prompt file of a benchmark or its class; a folder, if it needs several.

    It is `prompts`, below `prompts`, or below THINKDRAW_BENCHMARKS. several: `prompts` must be a folder, with a folder per
    benchmark. Raises UserError if there is none.
    """
    root = prompts or (Path(os.environ[PROMPTS_VARIABLE]) if PROMPTS_VARIABLE in os.environ else None)
    if root is None:
        raise UserError(
            f"{benchmark.name} needs its official prompts: give prompts=PATH, or set {PROMPTS_VARIABLE} to a folder "
            f"that holds {benchmark.folder}/."
        )
    if not root.exists() or (several and root.is_file()):
        raise UserError(f"prompts={root} is not {'a folder with one folder per benchmark' if several else 'there'}.")
    path = root / benchmark.folder if (root / benchmark.folder).is_dir() else root
    file = path / benchmark.prompt_file if path.is_dir() and benchmark.prompt_file else path
    if not file.exists():
        raise UserError(
            f"{benchmark.name}: {path} holds no {benchmark.prompt_file}. Give the file itself: prompts=FILE."
        )
    return file


def lab_split(name: str) -> Split:
    """Return a split of the lab by its name. Raises UserError."""
    if name not in ("test", "ood", "validation"):
        raise UserError(f"split={name!r}: one of test, ood, validation.")
    return name


def lab_prompts(name: str, split: str, count: int) -> list[Prompt]:
    """Make the prompts of a lab family, by its benchmark name."""
    split = lab_split(split)
    family = family_of(name)
    if family is None:
        raise UserError(f"{name!r} is no benchmark of the lab: one of {', '.join(f'lab-{known}' for known in SPECS)}.")
    prompts = [e.prompt for e in prompt_set(family, split, count)]
    return [with_categories(prompt) for prompt in prompts] if name == "lab-dense" else prompts


def output_folder(config: EvaluateConfig) -> Path:
    """Return the folder of an evaluation.

    It is `config.out`, or below runs/eval, named after the checkpoint or the picture folder.
    """
    source = config.images.resolve().name if config.images else Path(str(config.policy)).name
    return config.out or Path("runs/eval") / source


def judge_folder(label: str) -> str:
    """Make a folder name of the judge in a label's brackets."""
    inside = label.partition("[")[2].rstrip("]") or "official"
    return re.sub(r"[^\w.+-]+", "-", inside)


def _check_roles(config: EvaluateConfig) -> None:
    known: set[str] = set()
    for name in config.benchmarks:
        suite = LAB_SUITES.get(name)
        known |= set(benchmark_class(suite.benchmark if suite else name).roles)
    if unknown := sorted(set(config.judges) - known):
        roles = ", ".join(sorted(known))
        raise UserError(
            f"judge role {unknown[0]!r}: {', '.join(config.benchmarks)} have no such role. Set one of {roles}."
        )


def _open(role: str, usual: str, overrides: JsonMapping, prompts: Path | None, device: str) -> Any:
    """Open the judge of a role; None where the user or the lab names none.

    prompts: the prompt file.
    """
    settings = {"name": usual, **overrides}
    name = str(settings.pop("name"))
    if name == NO_JUDGE:
        return None
    names_file = prompts.parent / OBJECT_NAMES if prompts else None
    if name == "mask2former" and names_file and names_file.is_file():
        settings.setdefault("names_file", str(names_file))  # GenEval's spelling of COCO's classes
    try:
        return open_judge(name, **on_device(name, settings, device))
    except UserError as error:
        raise UserError(f"{error} (The judge of {role!r}; judges.{role}=NAME gives it to another.)") from error
