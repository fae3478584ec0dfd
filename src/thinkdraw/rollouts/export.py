"""A store as one flat file, for other tools; with pictures on request."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from torch import Tensor

from thinkdraw.images import to_png
from thinkdraw.rollouts.shards import StoredShard
from thinkdraw.rollouts.store import RolloutStore
from thinkdraw.runtime.files import atomic_file, atomic_write_bytes


def export(
    store: RolloutStore, out: Path, *, as_jsonl: bool = False, pictures: Callable[[StoredShard], Tensor] | None = None,
    skip_damaged: bool = False,
) -> Path:  # fmt: skip
    """Write `out`/rollouts.parquet or .jsonl: the columns of the shards, then score_<judge> and components_<judge>.

    pictures: gives a shard's (B, H, W, 3) uint8, written as png/<row>.png and named in the column `picture`.
    Returns the file. Raises UserError for a damaged shard, unless skip_damaged.
    """
    tables = _tables(store, out, pictures, skip_damaged)
    path = out / ("rollouts.jsonl" if as_jsonl else "rollouts.parquet")
    with atomic_file(path) as temporary:
        if as_jsonl:
            with temporary.open("w", encoding="utf-8") as file:
                for table in tables:
                    file.writelines(json.dumps(r, ensure_ascii=False, default=str) + "\n" for r in table.to_pylist())
        else:
            first = next(tables, None)
            with pq.ParquetWriter(
                temporary, first.schema if first is not None else pa.schema([]), compression="zstd"
            ) as writer:
                for table in (*([] if first is None else [first]), *tables):
                    writer.write_table(table)
    return path


def _tables(
    store: RolloutStore, out: Path, pictures: Callable[[StoredShard], Tensor] | None, skip_damaged: bool
) -> Iterator[pa.Table]:
    for shard in store.shards(skip_damaged=skip_damaged):
        table = shard.table.replace_schema_metadata(None)
        for judge in store.judges:
            scores = store.column(judge).table(shard.index, shard.footer)
            for name, kind in (("score", pa.float32()), ("components", pa.string())):
                values = pa.nulls(len(table), kind) if scores is None else scores[name]
                table = table.append_column(pa.field(f"{name}_{judge}", kind), values)
        if pictures is not None:
            names = [f"png/{row:08d}.png" for row in shard.row_ids]
            for name, picture in zip(names, pictures(shard)):
                atomic_write_bytes(out / name, to_png(picture.cpu()))
            table = table.append_column("picture", pa.array(names))
        yield table
