"""Rows as parquet shards with ReasonGen-R1's columns, for `datasets` and pyarrow."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from thinkdraw.corpus.sources import Item
from thinkdraw.data.prompt_files import row_of
from thinkdraw.runtime.json_types import JsonObject

_TEXTS = pa.list_(pa.string())
_PROMPTS = {
    "short_caption": pa.string(),
    **dict.fromkeys(("paraphrases", "varied_captions", "tags", "object_prompts"), _TEXTS),
}
_COTS = {"step_by_step": pa.string(), **dict.fromkeys(("object_centric", "region_descriptions", "tags"), _TEXTS)}
_TYPES: JsonObject = {
    "image": pa.struct({"bytes": pa.binary(), "path": pa.string()}),
    "brief_caption": pa.string(),
    "detailed_caption": pa.string(),
    "augmented_prompts": pa.struct(_PROMPTS),
    "augmented_cots": pa.struct(_COTS),
    "id": pa.string(),
    "structure": pa.string(),  # clauses and questions as JSON, "" where the prompt has none
}


def _feature(kind: Any) -> Any:
    """Describe a column type as `datasets` does."""
    if pa.types.is_struct(kind):
        return {field.name: _feature(field.type) for field in kind}
    if pa.types.is_list(kind):
        return {"feature": _feature(kind.value_type), "_type": "List"}
    return {"dtype": str(kind), "_type": "Value"}


_FEATURES = {name: {"_type": "Image"} if name == "image" else _feature(kind) for name, kind in _TYPES.items()}
SCHEMA = pa.schema(
    list(_TYPES.items()), metadata={b"huggingface": json.dumps({"info": {"features": _FEATURES}}).encode()}
)


def row_for(item: Item, answer: JsonObject, picture: bytes | None) -> JsonObject:
    """Make a row of the corpus. picture: the file's bytes, or None without a picture."""
    structure = {k: v for k, v in row_of(item.prompt).items() if k not in ("id", "prompt")}
    return {
        "image": {"bytes": picture, "path": None} if picture else None,
        "brief_caption": item.prompt.text or answer["short_caption"],
        "detailed_caption": answer["detailed_caption"],
        "augmented_prompts": {name: answer[name] for name in _PROMPTS},
        "augmented_cots": {name: answer[name] for name in _COTS},
        "id": item.id,
        "structure": json.dumps(structure) if structure else "",
    }


def write_shards(folder: Path, rows: Iterator[JsonObject], count: int, rows_per_shard: int) -> list[str]:
    """Write the shards; return the files' names.

    count: number of rows, from which the names' total of files follows.
    """
    total = max(1, -(-count // rows_per_shard))
    names = [f"train-{index:05d}-of-{total:05d}.parquet" for index in range(total)]
    for index, name in enumerate(names):
        size = min(rows_per_shard, count - index * rows_per_shard)
        with pq.ParquetWriter(folder / name, SCHEMA, compression="zstd", write_page_checksum=True) as writer:
            for begin in range(0, size, 100):  # a row group of at most 100 pictures, so that readers need little memory
                chunk = [next(rows) for _ in range(min(100, size - begin))]
                writer.write_table(pa.Table.from_pylist(chunk, schema=SCHEMA))
    return names
