"""Test prompts of the benchmarks that this version knows, where the user keeps them: training must not see them."""

import os
from pathlib import Path

from thinkdraw.benchmarks import BENCHMARKS, benchmark_class

PROMPTS_VARIABLE = "THINKDRAW_BENCHMARKS"
WITHOUT_QUESTIONS = "prompts.jsonl"
"""DPG-Bench's prompts alone, which are enough to keep them out."""


def known_test_sets() -> list[Path]:
    """Prompt files below THINKDRAW_BENCHMARKS, of those benchmarks that are there; none where it is not set."""
    root = os.environ.get(PROMPTS_VARIABLE)
    kinds = [benchmark_class(name) for name in BENCHMARKS] if root else []
    found = []
    for kind in kinds:
        folder = Path(str(root)) / kind.folder
        files = [path for name in (kind.prompt_file, WITHOUT_QUESTIONS) if (path := folder / name).exists()]
        found += files[:1]
    return found
