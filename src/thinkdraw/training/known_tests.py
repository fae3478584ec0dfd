"""Published test sets, which must not be trained on: known by content and name."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from thinkdraw.benchmarks import BENCHMARKS, benchmark_class
from thinkdraw.benchmarks.settings import git_hash_of, sha256_of
from thinkdraw.data.prompt_files import COMPBENCH_TRAIN, T2I_R1_FILE, is_compbench_test
from thinkdraw.data.test_sets.hashes import names_with_counts, published_tests_among
from thinkdraw.errors import UserError
from thinkdraw.types import Prompt

PROMPTS_VARIABLE = "THINKDRAW_BENCHMARKS"
WITHOUT_QUESTIONS = "prompts.jsonl"
"""DPG-Bench's prompts without its questions: enough to keep them out of training."""
_MOST_BYTES = 1 << 24  # larger files are no prompt files, and are not hashed
_FILE_NAMES = {
    "evaluation_metadata.jsonl": "GenEval",
    "generation_prompts.txt": "GenEval",
    "geneval2_data.jsonl": "GenEval 2",
    "dpg_bench.csv": "DPG-Bench",
    "test_prompts_en.csv": "UniGenBench",
    "test_prompts_en_long.csv": "UniGenBench",
}
# Published for training, although a few of their prompts are test prompts too: T2I-CompBench's, T2I-R1's, and
# ReasonGen-R1's prompts for RL.
_TRAINING_FILE = re.compile(rf"{COMPBENCH_TRAIN.pattern}|{T2I_R1_FILE}|(?:geneval|dpg|t2i)_train")


def refuse_names(source: str) -> None:
    """Raise UserError for a benchmark's or a hub data set's name in place of a path."""
    if Path(source).exists():
        return
    if re.fullmatch(r"[\w.-]+/[\w.-]+", source) and not Path(source).suffix and not Path(source).parent.is_dir():
        raise UserError(
            f"source={source} is no file or folder here. If it is a data set on the hub, download it first: hf download {source} "
            "--repo-type dataset --local-dir FOLDER, and give that folder."
        )
    if source in BENCHMARKS:
        raise UserError(
            f"source={source} is a benchmark: its test prompts must not be trained on. Give a file of prompts; T2I-CompBench's "
            "folder gives its train files."
        )


def refuse_published_tests(path: Path, prompts: Sequence[Prompt]) -> None:
    """Raise UserError if prompts of a file or folder are a published test set.

    They are recognised by their texts (half of them, or more), by the file's hash, or by its published name.
    """
    tested = published_tests_among(prompts)
    by_text = next(iter(tested.values())) if 2 * len(tested) >= max(1, len(prompts)) else None
    by_name = _FILE_NAMES.get(path.name) or ("T2I-CompBench" if is_compbench_test(path) else None)
    # Of a folder with train files these were read, whatever test files lie beside them.
    by_hash = None if path.is_dir() and is_published_training(path) else _published_file(path)
    if name := by_text or by_hash or by_name:
        how = "" if by_text else ", by its name: rename the file if it holds other prompts" if by_name == name else ""
        raise UserError(
            f"{path} is the test set of {name}{how}. It must not be trained on, nor choose a checkpoint. Give other prompts; use "
            "`thinkdraw eval` to draw these."
        )


def refuse_tests_among(prompts: Sequence[Prompt], tested: Mapping[int, str], key: str) -> None:
    """Raise UserError if published test prompts are among the prompts.

    tested: index → benchmark. key: of `leaks` in the configuration, the way out.
    """
    if tested:
        shown = "; ".join(f"{prompts[i].text[:80]!r}" for i in list(tested)[:3])
        raise UserError(
            f"{len(tested)} of {len(prompts)} training prompts are test prompts of {names_with_counts(tested.values())}: {shown}"
            f"{'; …' if len(tested) > 3 else ''}. Leave them out with {key}: drop, or choose other prompts."
        )


def refuse_tests_in_store(path: Path, prompts: Sequence[Prompt]) -> None:
    """Raise UserError if rollouts of a store are of published test prompts."""
    texts = {prompt.text: prompt for prompt in prompts}
    if tested := published_tests_among(list(texts.values())):
        raise UserError(
            f"{path} holds rollouts of {len(tested)} test prompts of {names_with_counts(tested.values())}, which must not be "
            "trained on. Sample a store of other prompts."
        )


def is_published_training(path: Path) -> bool:
    """Tell whether a file, or the files read of a folder, were published for training."""
    return bool(_TRAINING_FILE.fullmatch(path.stem)) or any(
        _TRAINING_FILE.fullmatch(file.stem) for file in (path.iterdir() if path.is_dir() else ())
    )


def _published_file(path: Path) -> str | None:
    """Find the benchmark whose official file this is, or is in this folder, by hash."""
    files = [path] if path.is_file() else [file for file in path.iterdir() if file.is_file()] if path.is_dir() else []
    hashes = {h for f in files if f.stat().st_size <= _MOST_BYTES for h in (sha256_of(f), git_hash_of(f))}
    return next((name for name in BENCHMARKS if hashes & set(benchmark_class(name).official_sha256)), None)


def known_test_sets() -> list[Path]:
    """Find the prompt files of benchmarks below THINKDRAW_BENCHMARKS, if it is set."""
    root = os.environ.get(PROMPTS_VARIABLE)
    kinds = [kind for name in BENCHMARKS if (kind := benchmark_class(name)).folder] if root else []
    prompt_files = []
    for kind in kinds:
        folder = Path(str(root)) / kind.folder
        files = [path for name in (kind.prompt_file, WITHOUT_QUESTIONS) if (path := folder / name).exists()]
        prompt_files += files[:1]
    return prompt_files
