"""Draw a benchmark's pictures in chunks, and skip those that are there.

A picture's seed depends on that picture alone, so neither the chunk size nor a restart changes it.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from thinkdraw.benchmarks import row_log
from thinkdraw.runtime.files import atomic_write_text
from thinkdraw.runtime.formats.sealed import seal_line
from thinkdraw.runtime.json_types import JsonObject
from thinkdraw.types import Drawer, Prompt, Sampling

RESULTS = "results.jsonl"


@dataclass(frozen=True)
class DrawnPicture:
    """One picture of a benchmark.

    picture: (H, W, 3) uint8. image_tokens: (N,) int64. thought: "" for thought `off`. was_cut: at its budget.
    """

    prompt_index: int
    prompt: Prompt
    sample: int
    seed: int
    thought: str
    was_cut: bool
    picture: np.ndarray
    image_tokens: np.ndarray


def picture_seed(benchmark: str, prompt: Prompt, sample: int, seed: int) -> int:
    """Derive a picture's seed, 63 bits, from what names it.

    No other picture of any benchmark shares it, whatever is drawn before it or beside it.
    """
    text = json.dumps([benchmark, prompt.id or prompt.text, sample, seed])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) >> 1  # 63 bits fit torch's signed seeds


def draw_benchmark(
    policy: Drawer, prompts: Sequence[Prompt], sampling: Sampling, samples_per_prompt: int = 4,
    folder: Path | str | None = None, seed: int = 0, chunk: int = 256,
    progress: Callable[[int, int], None] | None = None, *, benchmark: str = "lab",
) -> Iterator[list[DrawnPicture]]:  # fmt: skip
    """Draw the pictures in order, about `chunk` at a time.

    All samples of a prompt are in the same list. folder: pictures with a row in its results.jsonl are left out.
    progress: called with the numbers of pictures done and in all.
    """
    done = {(row["prompt_id"], row["sample"]) for row in read_rows(folder)} if folder is not None else set()
    total = len(prompts) * samples_per_prompt
    num_drawn = 0
    step = max(1, chunk // samples_per_prompt)
    for start in range(0, len(prompts), step):
        indices = range(start, min(start + step, len(prompts)))
        num_drawn += len(indices) * samples_per_prompt
        numbers = range(samples_per_prompt)
        missing = [(i, k) for i in indices for k in numbers if (prompts[i].id or prompts[i].text, k) not in done]
        if missing:
            seeds = [picture_seed(benchmark, prompts[i], k, seed) for i, k in missing]
            rollouts = policy.sample([prompts[i] for i, _ in missing], sampling, seeds=seeds)
            assert rollouts.pictures is not None
            pictures, tokens = rollouts.pictures.cpu().numpy(), rollouts.image_tokens().cpu().numpy()
            thoughts = rollouts.thoughts or ("",) * len(missing)
            was_cut = rollouts.text_was_cut().tolist()
            yield [
                DrawnPicture(i, prompts[i], k, seeds[row], thoughts[row], was_cut[row], pictures[row], tokens[row])
                for row, (i, k) in enumerate(missing)
            ]
        if progress is not None:
            progress(num_drawn, total)


def read_rows(folder: Path | str) -> list[JsonObject]:
    """Read the rows of a folder's results.jsonl; none where there is no such file."""
    return row_log.read_rows(Path(folder) / RESULTS)


def write_rows(folder: Path | str, rows: Sequence[JsonObject]) -> None:
    """Replace results.jsonl by these rows, whole or not at all."""
    atomic_write_text(Path(folder) / RESULTS, "".join(map(seal_line, rows)))
