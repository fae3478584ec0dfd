"""Published test sets, which must not be trained on, recognised by content."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from thinkdraw.benchmarks import BENCHMARKS, benchmark_class
from thinkdraw.benchmarks.settings import git_hash_of, sha256_of
from thinkdraw.data.leak_guard import normalise
from thinkdraw.errors import UserError
from thinkdraw.types import Prompt

PROMPTS_VARIABLE = "THINKDRAW_BENCHMARKS"
WITHOUT_QUESTIONS = "prompts.jsonl"
"""DPG-Bench's prompts without its questions: enough to keep them out of training."""
PUBLISHED = {
    "6500c6212439bc85d2599307cce6772d": "GenEval",
    "35a944b78cd1908843dfded86ea5dc3d": "GenEval 2",
    "50f62c9c8fb1538587ed1f015ef84d4c": "DPG-Bench",
    "422cf9a15f5dc0f44e429737e2e87701": "UniGenBench (short)",
    "1011d60deb7ca1389afb801815c85776": "UniGenBench (long)",
    "9dd1ec8e58763a1dd22d492828a278e4": "T2I-CompBench",
    "b8cba57d35b12804881d8e0c93cb07a1": "T2I-CompBench (3d_spatial)",
    "39c48f6e016b17712db4d315b4524b88": "T2I-CompBench (color)",
    "dceccfbc66f60e5d7eb33cdb07aca399": "T2I-CompBench (color, seen)",
    "034ed3c9e0f0402b001b189a3c769e2a": "T2I-CompBench (color, unseen)",
    "566c10adad90b695c9120e5584f6e29e": "T2I-CompBench (complex)",
    "cb7c9872dbc342790c8c05b202150d3f": "T2I-CompBench (complex, action)",
    "ca584ac2fac5bd582d3d51168553d92e": "T2I-CompBench (complex, spatial)",
    "3e5ba8c36ce874c95fd9ae654b546fe5": "T2I-CompBench (complex, spatial and action)",
    "78204173a572024f0d97ad0dc1d86c24": "T2I-CompBench (non_spatial)",
    "ee0fee90f6c41ded1db4588629f24c2a": "T2I-CompBench (numeracy)",
    "9c2e15bedbbf85c2297c212864e6fc23": "T2I-CompBench (shape)",
    "491448a2fe5e96fee42ba54a5cdf4c16": "T2I-CompBench (shape, seen)",
    "baaa46cfb01dddb092c50a8f356f349f": "T2I-CompBench (shape, unseen)",
    "1d06a069d4f6926c444b7ad8eb7dd0af": "T2I-CompBench (spatial)",
    "b1f8bba9f0366874a9caa2c4bf5e7119": "T2I-CompBench (texture)",
    "1a1d1f3590e37e79efa00e8814a6e470": "T2I-CompBench (texture, seen)",
    "dc4947f4ec22e608189d3b6adc1d8e1f": "T2I-CompBench (texture, unseen)",
}
"""`texts_hash` of published test sets → their names."""
_MOST_BYTES = 1 << 24  # larger files are no prompt files, and are not hashed


def texts_hash(prompts: Sequence[Prompt]) -> str:
    """Hash the normalised texts in any order: the same for every form of file."""
    texts = sorted({normalise(prompt.text) for prompt in prompts})
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:32]


def refuse_published_tests(path: Path, prompts: Sequence[Prompt]) -> None:
    """Raise UserError if prompts of a file or folder are a published test set.

    They are recognised by their texts, or by the file's hash, whatever the file is called.
    """
    if name := PUBLISHED.get(texts_hash(prompts)) or _published_file(path):
        raise UserError(
            f"{path} is the test set of {name}: it must not be trained on, nor choose a checkpoint. Give other prompts; use "
            "`thinkdraw eval` to draw these."
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
