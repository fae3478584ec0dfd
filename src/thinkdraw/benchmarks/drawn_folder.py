"""Draw a benchmark's pictures into a folder, prompt by prompt, and resume there.

The folder holds drawing.json (what was asked), drawn.jsonl (a row per picture) and pictures/NNNNN_K.png.
"""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from thinkdraw.benchmarks.base import PictureFile, Row, null_for_nan
from thinkdraw.benchmarks.drawing import picture_seed
from thinkdraw.benchmarks.row_log import RowLog
from thinkdraw.benchmarks.settings import write_or_check_settings
from thinkdraw.images import to_png
from thinkdraw.runtime.files import atomic_write_bytes, only_writer
from thinkdraw.runtime.json_types import JsonObject
from thinkdraw.types import Policy, Prompt, Rollouts, Sampling


def draw_into_folder(
    folder: Path, policy: Policy, prompts: Mapping[int, Prompt], settings: JsonObject, sampling: Sampling,
    *, samples: int, seed: int, chunk: int, progress: Callable[[int, int], None] | None = None,
) -> list[Row]:  # fmt: skip
    """Draw the pictures that are missing, and return the rows of all, in order.

    prompts: index in the benchmark → prompt. settings: what defines the drawing. Its "benchmark" is part of every
    picture's seed, beside the prompt's id, the picture's number and `seed`. chunk: pictures drawn at once, which
    changes no picture. A prompt with some rows missing is drawn again, to the same pictures.
    Raises UserError if the folder holds another drawing.
    """
    with only_writer(folder):
        write_or_check_settings(folder / "drawing.json", settings, rows=folder / "drawn.jsonl")
        log = RowLog(folder / "drawn.jsonl")
        done = _by_prompt(log.read(), samples)
        step = max(1, chunk // samples)
        remaining = [index for index in prompts if index not in done]
        for start in range(0, len(remaining), step):
            indices = remaining[start : start + step]
            seeds = [picture_seed(settings["benchmark"], prompts[i], k, seed) for i in indices for k in range(samples)]
            begin = time.perf_counter()
            rollouts = policy.sample([prompts[i] for i in indices for _ in range(samples)], sampling, seeds=seeds)
            seconds = (time.perf_counter() - begin) / len(seeds)
            rows = _write_pictures(folder, rollouts, indices, samples, seconds)
            log.append(rows)
            done |= _by_prompt(rows, samples)
            if progress is not None:
                progress(len(done) * samples, len(prompts) * samples)
        return [row for index in prompts for row in done[index]]


def drawn_files(folder: Path, indices: Iterable[int], samples: int) -> dict[tuple[int, int], PictureFile]:
    """Map (prompt index, sample) → the picture's file, for all files that exist."""
    files = {(i, k): PictureFile(_file(folder, i, k)) for i in indices for k in range(samples)}
    return {key: file for key, file in files.items() if file.path.is_file()}


def _write_pictures(
    folder: Path, rollouts: Rollouts, indices: Sequence[int], samples: int, seconds: float
) -> list[Row]:
    """Write the pictures of some whole prompts, then return their rows."""
    assert rollouts.pictures is not None
    pictures, codes = rollouts.pictures.cpu().numpy(), rollouts.image_tokens().cpu().numpy()
    was_cut = rollouts.text_was_cut().tolist()
    num_image, num_text = (rollouts.is_image & rollouts.is_sampled()).sum(1).tolist(), text_tokens(rollouts)
    rows = []
    for rank, index in enumerate(indices):
        group = slice(rank * samples, (rank + 1) * samples)
        distance = null_for_nan(token_distance(codes[group]))
        for sample in range(samples):
            row = rank * samples + sample
            atomic_write_bytes(_file(folder, index, sample), to_png(np.asarray(pictures[row])))
            prompt = rollouts.prompts[row]
            rows.append(
                {"prompt_index": index, "prompt_id": prompt.id or prompt.text, "prompt": prompt.text, "sample": sample,
                 "seed": int(rollouts.seeds[row]), "thought": rollouts.thoughts[row] if rollouts.thoughts else "",
                 "thought_cut": was_cut[row], "text_tokens": num_text[row], "image_tokens": num_image[row],
                 "seconds": seconds, "token_distance": distance}
            )  # fmt: skip
    return rows


def token_distance(codes: np.ndarray) -> float:
    """Average over pairs the share of image tokens in which two pictures differ.

    codes: (K, N). NaN with fewer than two pictures.
    """
    a, b = np.triu_indices(len(codes), k=1)
    return float((codes[a] != codes[b]).mean()) if len(a) else math.nan


def text_tokens(rollouts: Rollouts) -> list[int]:
    """Count for each rollout the tokens that it chose and that are no image tokens."""
    return (rollouts.mask & ~rollouts.is_image).sum(1).tolist()


def _by_prompt(rows: Sequence[Row], samples: int) -> dict[int, list[Row]]:
    """Group rows by prompt; keep prompts with a row for every picture.

    Of two rows about one picture the later one counts.
    """
    by_prompt: dict[int, dict[int, Row]] = {}
    for row in rows:
        by_prompt.setdefault(row["prompt_index"], {})[row["sample"]] = row
    return {
        index: [of_sample[k] for k in range(samples)]
        for index, of_sample in by_prompt.items()
        if set(range(samples)) <= of_sample.keys()
    }


def _file(folder: Path, index: int, sample: int) -> Path:
    return folder / "pictures" / f"{index:05d}_{sample}.png"
