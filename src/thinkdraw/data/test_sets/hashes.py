"""Published test prompts by short hashes; their texts are not kept.

A file beside this one holds a benchmark's hashes, one for each text. They are written from the published files:

    python -m thinkdraw.data.test_sets.hashes benchmarks

The folder holds a folder per benchmark; without it, it is what THINKDRAW_BENCHMARKS names.
"""

import hashlib
import os
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

from thinkdraw.data.leak_guard import normalise, text_key
from thinkdraw.data.prompt_files import read_prompts
from thinkdraw.errors import UserError
from thinkdraw.runtime.files import atomic_write_text
from thinkdraw.types import Prompt

PUBLISHED = "a published test prompt"
# Of 6,000 known and a million other texts, one in 50,000 such sets has two that share 48 bits.
DIGITS = 12
# File beside this one → the benchmark's name, and its published files.
TEST_SETS = {
    "geneval.txt": ("GenEval", ["geneval/evaluation_metadata.jsonl"]),
    "geneval2.txt": ("GenEval 2", ["geneval2/geneval2_data.jsonl"]),
    "dpg_bench.txt": ("DPG-Bench", ["dpg_bench/prompts.jsonl"]),
    "unigenbench.txt": ("UniGenBench", ["unigenbench/test_prompts_en.csv", "unigenbench/test_prompts_en_long.csv"]),
    "t2i_compbench.txt": ("T2I-CompBench", ["t2i_compbench"]),
}


def text_hashes(text: str) -> tuple[str, str]:
    """Hash a text by the leak guard's key, and as it stands after normalisation.

    12 hex digits (48 bits) each.
    """
    keys = repr(text_key(text)), f"as it stands: {normalise(text)}"
    key, exact = (hashlib.sha256(key.encode()).hexdigest()[:DIGITS] for key in keys)
    return key, exact


def hash_of(prompt: Prompt) -> str:
    """Return the hash by which a test prompt is kept.

    By its key: "a photo of" makes no difference, nor does the order around a single "and". But GenEval's prompts of one
    thing are kept as they stand, "a photo of a red apple": otherwise a caption of two words would be a test prompt.
    """
    key, exact = text_hashes(prompt.text)
    return exact if prompt.tag in ("single_object", "colors") else key


@cache
def _names() -> dict[str, str]:
    """Map hash → name of its test set."""
    names: dict[str, str] = {}
    for file, (name, _) in TEST_SETS.items():
        lines = (Path(__file__).parent / file).read_text(encoding="utf-8").split()
        names |= dict.fromkeys(lines, name)
    return names


def published_tests_among(prompts: Sequence[Prompt]) -> dict[int, str]:
    """Map the index of each prompt that a published benchmark tests to its name.

    The lab's own prompts are never among them: "a photo of a cup" asks for a shape of its world.
    """
    names = _names()
    hashes = (("", "") if _is_of_the_lab(prompt) else text_hashes(prompt.text) for prompt in prompts)
    return {i: name for i, (key, exact) in enumerate(hashes) if (name := names.get(key) or names.get(exact))}


def _is_of_the_lab(prompt: Prompt) -> bool:
    return any(question.fact is not None for question in prompt.questions)


def names_with_counts(names: Iterable[str]) -> str:
    """List test sets for a message: "GenEval (3), DPG-Bench (1)"."""
    return ", ".join(f"{name} ({count})" for name, count in Counter(names).most_common())


def write_hashes(benchmarks: Path, folder: Path) -> dict[str, int]:
    """Write the files of hashes into `folder`; return how many texts each has.

    Raises UserError for a published file that is missing or cannot be read.
    """
    written = {}
    for file, (_, sources) in TEST_SETS.items():
        hashes = sorted({hash_of(prompt) for source in sources for prompt in read_prompts(benchmarks / source)})
        atomic_write_text(folder / file, "\n".join(hashes) + "\n")
        written[file] = len(hashes)
    return written


if __name__ == "__main__":
    root = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("THINKDRAW_BENCHMARKS")
    if root is None:
        sys.exit("Give the folder of the benchmarks' published files, or set THINKDRAW_BENCHMARKS.")
    try:
        print(write_hashes(Path(root), Path(__file__).parent))
    except UserError as error:
        sys.exit(str(error))
