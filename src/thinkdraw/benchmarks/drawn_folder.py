"""Draws a benchmark's pictures into a folder, prompt by prompt; one that was stopped goes on where it was.

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
from thinkdraw.benchmarks.settings import keep_settings
from thinkdraw.images import to_png
from thinkdraw.runtime.files import atomic_write_bytes, only_writer
from thinkdraw.runtime.json_types import JsonObject
from thinkdraw.types import Policy, Prompt, Rollouts, Sampling


def draw_into(
    folder: Path, policy: Policy, prompts: Mapping[int, Prompt], settings: JsonObject, sampling: Sampling,
    *, samples: int, seed: int, chunk: int, progress: Callable[[int, int], None] | None = None,
) -> list[Row]:  # fmt: skip
    """Draw what is not there yet; the rows of all pictures, in order.

    prompts: index in the benchmark → prompt. settings: what was asked; its "benchmark" is part of every picture's seed,
    beside the prompt's id, the picture's number and `seed`. chunk: pictures drawn at once, which changes no picture.
    A prompt whose rows are not all there is drawn again, to the same pictures. Raises UserError if the folder holds another drawing.
    """
    with only_writer(folder):
        keep_settings(folder / "drawing.json", settings, rows=folder / "drawn.jsonl")
        log = RowLog(folder / "drawn.jsonl")
        done = _by_prompt(log.read(), samples)
        step = max(1, chunk // samples)
        left = [index for index in prompts if index not in done]
        for start in range(0, len(left), step):
            part = left[start : start + step]
            seeds = [picture_seed(settings["benchmark"], prompts[i], k, seed) for i in part for k in range(samples)]
            begin = time.perf_counter()
            rollouts = policy.sample([prompts[i] for i in part for _ in range(samples)], sampling, seeds=seeds)
            seconds = (time.perf_counter() - begin) / len(seeds)
            rows = _keep(folder, rollouts, part, samples, seconds)
            log.append(rows)
            done |= _by_prompt(rows, samples)
            if progress is not None:
                progress(len(done) * samples, len(prompts) * samples)
        return [row for index in prompts for row in done[index]]


def drawn_places(folder: Path, indices: Iterable[int], samples: int) -> dict[tuple[int, int], PictureFile]:
    """(prompt index, sample) → the picture's file, of all that are there."""
    places = {(i, k): PictureFile(_file(folder, i, k)) for i in indices for k in range(samples)}
    return {key: place for key, place in places.items() if place.path.is_file()}


def _keep(folder: Path, rollouts: Rollouts, part: Sequence[int], samples: int, seconds: float) -> list[Row]:
    """Write the pictures of some whole prompts, then give their rows."""
    assert rollouts.pictures is not None
    pictures, codes = rollouts.pictures.cpu().numpy(), rollouts.image_tokens().cpu().numpy()
    num_image, num_text = (rollouts.is_image & rollouts.is_sampled()).sum(1).tolist(), text_tokens(rollouts)
    rows = []
    for place, index in enumerate(part):
        group = slice(place * samples, (place + 1) * samples)
        apart = null_for_nan(token_distance(codes[group]))
        for sample in range(samples):
            row = place * samples + sample
            atomic_write_bytes(_file(folder, index, sample), to_png(np.asarray(pictures[row])))
            prompt = rollouts.prompts[row]
            rows.append(
                {"prompt_index": index, "prompt_id": prompt.id or prompt.text, "prompt": prompt.text, "sample": sample,
                 "seed": int(rollouts.seeds[row]), "thought": rollouts.thoughts[row] if rollouts.thoughts else "",
                 "text_tokens": num_text[row], "image_tokens": num_image[row], "seconds": seconds, "token_distance": apart}
            )  # fmt: skip
    return rows


def token_distance(codes: np.ndarray) -> float:
    """Mean share of image tokens that differ between two of K pictures, (K, N) codes; NaN with fewer than two."""
    a, b = np.triu_indices(len(codes), k=1)
    return float((codes[a] != codes[b]).mean()) if len(a) else math.nan


def text_tokens(rollouts: Rollouts) -> list[int]:
    """Tokens that each rollout chose and that are no image tokens."""
    return (rollouts.mask & ~rollouts.is_image).sum(1).tolist()


def _by_prompt(rows: Sequence[Row], samples: int) -> dict[int, list[Row]]:
    """Prompts with a row for every picture; of two rows about one picture the later counts."""
    found: dict[int, dict[int, Row]] = {}
    for row in rows:
        found.setdefault(row["prompt_index"], {})[row["sample"]] = row
    return {
        index: [of_sample[k] for k in range(samples)]
        for index, of_sample in found.items()
        if set(range(samples)) <= of_sample.keys()
    }


def _file(folder: Path, index: int, sample: int) -> Path:
    return folder / "pictures" / f"{index:05d}_{sample}.png"
