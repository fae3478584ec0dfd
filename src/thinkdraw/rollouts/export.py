"""Export of a store to one flat file for other tools, with pictures on request."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

from pydantic import Field
from torch import Tensor

from thinkdraw.config import StrictModel
from thinkdraw.images import to_png
from thinkdraw.rollouts import arrow, rows
from thinkdraw.rollouts.shards import StoredShard
from thinkdraw.rollouts.store import RolloutStore
from thinkdraw.runtime.files import atomic_file, atomic_write_bytes


class ExportConfig(StrictModel):
    """Settings of `thinkdraw store export`."""

    store: Path = Field(description="Folder of the rollout store.")
    out: Path = Field(description="Folder of rollouts.parquet and of the pictures, in png/.")
    png: bool = Field(
        default=False, description="Decode the pictures, one PNG for each row; that takes seconds for each hundred."
    )
    jsonl: bool = Field(default=False, description="Write rollouts.jsonl in place of parquet: larger, and readable.")
    policy: str | None = Field(
        default=None,
        description="Checkpoint that decodes the image tokens into pictures; null is the one that drew them.",
    )
    skip_damaged: bool = Field(
        default=False, description="Leave damaged shards out and export the rest; false stops at the first one."
    )


def export(
    store: RolloutStore,
    out: Path,
    *,
    as_jsonl: bool = False,
    pictures: Callable[[StoredShard], Tensor] | None = None,
    skip_damaged: bool = False,
) -> Path:
    """Write `out`/rollouts.parquet or .jsonl and return its path.

    Columns are those of the shards, then score_<judge> and components_<judge> for each judge.
    pictures: returns a shard's pictures (B, H, W, 3) uint8. They become png/<row>.png, named in the column
        `picture`.
    Raises UserError for a damaged shard, unless skip_damaged.
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
            with arrow.table_writer(temporary, first) as writer:
                for table in (*([] if first is None else [first]), *tables):
                    writer.write_table(table)
    return path


def _tables(
    store: RolloutStore, out: Path, pictures: Callable[[StoredShard], Tensor] | None, skip_damaged: bool
) -> Iterator[arrow.Table]:
    """Yield the shards' tables, all with the same columns.

    Segment columns are null in shards that do not describe their segments, if another shard does.
    """
    describes_segments = store.describes_segments()
    for shard in store.shards(skip_damaged=skip_damaged):
        table = arrow.with_metadata(shard.table, None)
        for name, kind in rows.SEGMENTS.items() if describes_segments else ():
            if name not in table.column_names:
                table = arrow.with_column(table, name, None, kind)
        for judge in store.judges:
            scores = store.column(judge).table(shard.index, shard.footer)
            for name, kind in (("score", "float"), ("components", "string")):
                values = None if scores is None else scores[name]
                table = arrow.with_column(table, f"{name}_{judge}", values, kind)
        if pictures is not None:
            names = [f"png/{row:08d}.png" for row in shard.row_ids]
            for name, picture in zip(names, pictures(shard)):
                atomic_write_bytes(out / name, to_png(picture.cpu()))
            table = arrow.with_column(table, "picture", names, "string")
        yield table
