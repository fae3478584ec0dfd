"""How long filters and duplicate search take on metadata alone, and how much memory.

    python bench/corpus_filters.py [--rows 100000]

Made-up rows of about 75 words a rationale, 2 % of them near copies; a test set of 3,000 prompts to keep out.
"""

import argparse
import json
import resource
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from thinkdraw.corpus.filters.filtering import filter_texts
from thinkdraw.corpus.settings import FilterSettings
from thinkdraw.corpus.sources import Item
from thinkdraw.data.structure.words import GROUPS
from thinkdraw.types import Prompt

NOUNS = [noun for nouns in GROUPS.values() for noun in nouns]
COLORS = ["red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white", "golden", "silver"]
PLACES = [
    "on the left",
    "on the right",
    "at the top",
    "at the bottom",
    "in the middle",
    "in the background",
    "in front",
    "far away",
]
ENDS = [
    "in soft light",
    "against a plain wall",
    "under a grey sky",
    "with long shadows",
    "in sharp focus",
    "out of focus",
]


def rationale(rng: np.random.Generator) -> str:
    parts = []
    for _ in range(5):
        noun, color, place, end = (words[rng.integers(len(words))] for words in (NOUNS, COLORS, PLACES, ENDS))
        parts.append(f"There is a {color} {noun} with {rng.integers(2, 99)} small marks {place}, {end}.")
    return " ".join(parts)


def rows(count: int) -> Iterator[tuple[Item, dict[str, Any]]]:
    rng = np.random.default_rng(0)
    before = rationale(rng)
    for index in range(count):
        text = before.replace(" small ", " tiny ", 1) if rng.random() < 0.02 else rationale(rng)
        before = text
        noun, color = NOUNS[rng.integers(len(NOUNS))], COLORS[rng.integers(len(COLORS))]
        answer = {
            "short_caption": f"a {color} {noun} number {index}", "paraphrases": [f"one {noun} in {color} {index}"] * 2,
            "varied_captions": [f"a picture of the {color} {noun} {index}"] * 2, "tags": [noun, color],
            "object_prompts": [f"a {noun}"], "step_by_step": text, "object_centric": [text], "region_descriptions": [text],
            "detailed_caption": text,
        }  # fmt: skip
        yield Item(index, f"row-{index}", Prompt(answer["short_caption"], f"row-{index}"), True), answer


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=100_000)
    count = parser.parse_args().rows
    rng = np.random.default_rng(1)
    with tempfile.TemporaryDirectory() as folder:
        test = Path(folder) / "test.txt"
        test.write_text(
            "".join((rationale(rng) if n % 2 else f"a {NOUNS[n % len(NOUNS)]} test {n}") + "\n" for n in range(3000))
        )
        began, cpu = time.monotonic(), time.process_time()
        exclusions = filter_texts(rows(count), FilterSettings(against=[test]))
    found = {
        "rows": count, "seconds": round(time.monotonic() - began, 1), "cpu_seconds": round(time.process_time() - cpu, 1),
        "peak_memory_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
        "exclusions": dict(Counter(name for name, _ in exclusions.reasons.values())),
    }  # fmt: skip
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
