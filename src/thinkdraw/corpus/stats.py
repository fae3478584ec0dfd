"""Numbers of a corpus on disk: rows, words, values, diversity."""

from pathlib import Path

import numpy as np

from thinkdraw.corpus.writing import CARD, FILTERED_FILE, REJECTED_FILE
from thinkdraw.data.corpus_rows import COLUMNS, draw_prompt, flatten_texts, is_corpus, parse_cell, read_rows, shards_of
from thinkdraw.data.text_diversity import text_diversity
from thinkdraw.errors import UserError
from thinkdraw.runtime.formats import name_file_in_errors
from thinkdraw.runtime.formats.sealed import unseal_line
from thinkdraw.runtime.json_types import JsonObject
from thinkdraw.types import Prompt

SAMPLE = 5000
"""Rows whose diversity is measured; pairs are compared, so all rows would take long."""


def check_corpus(folder: Path) -> None:
    """Raise UserError where there is no corpus."""
    if not is_corpus(folder):
        raise UserError(f"{folder} holds no parquet files of a corpus. Give the folder that `corpus write` wrote.")


def corpus_stats(folder: Path) -> JsonObject:
    """Count rows, shards, bytes, words per field and values per list.

    Also measures how varied the first rows are. Raises UserError.
    """
    check_corpus(folder)
    shards = shards_of(folder)
    words: dict[str, list[int]] = {}
    values: dict[str, list[int]] = {}
    pictures, rationales, prompts = 0, [], []
    rng = np.random.default_rng(0)
    for shard in shards:
        pictures += sum(bool(cell.get("image")) for cell in read_rows(shard, ("image",)))
        for cell in read_rows(shard, COLUMNS):
            fields = {"brief_caption": cell.get("brief_caption"), "detailed_caption": cell.get("detailed_caption")}
            for column in ("augmented_prompts", "augmented_cots"):
                struct = parse_cell(cell.get(column))
                fields |= {f"{column}.{k}": v for k, v in struct.items()} if isinstance(struct, dict) else {}
            for name, value in fields.items():
                texts = flatten_texts(value)
                words.setdefault(name, []).append(sum(len(text.split()) for text in texts))
                values.setdefault(name, []).append(len(texts))
            if len(rationales) < SAMPLE:
                rationales.append(Prompt(" ".join(flatten_texts(cell.get("detailed_caption"))) or "-"))
                prompts.append(Prompt(draw_prompt(cell, ("plain", "paraphrase", "varied"), rng) or "-"))
    samples = {"prompts": prompts, "rationales": rationales}
    return {
        "rows": len(words.get("detailed_caption", ())),
        "pictures": pictures,
        "shards": len(shards),
        "bytes": sum(shard.stat().st_size for shard in shards),
        "filtered": _reasons(folder / FILTERED_FILE),
        "rejected": _reasons(folder / REJECTED_FILE),
        "fields": {
            name: {"words": _quantiles(counts), "values": float(np.mean(values[name]))}
            for name, counts in words.items()
        },
        "diversity": {name: vars(text_diversity(texts)) for name, texts in samples.items() if texts},
        "card": (folder / CARD).is_file(),
    }


def _quantiles(counts: list[int]) -> dict[str, float]:
    low, median, high = np.quantile(counts, [0.05, 0.5, 0.95]).tolist()
    return {"p5": low, "median": median, "p95": high}


def _reasons(path: Path) -> dict[str, int]:
    """Count the reasons in a file of rows that were set aside; empty without a file."""
    counts: dict[str, int] = {}
    if path.is_file():
        with name_file_in_errors(path, "`corpus write` writes it anew."), path.open("rb") as file:
            for line in file:
                reason = str(unseal_line(line)["reason"]).partition(":")[0]
                counts[reason] = counts.get(reason, 0) + 1
    return counts
