# pyright: basic
"""The little of pyarrow that a store needs, with the types that pyarrow does not have.

A schema is name → kind: a name of pyarrow's (int64, string, …), "time", or "list<…>" of one.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Protocol, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from thinkdraw.errors import UserError

ERRORS: tuple[type[Exception], ...] = (OSError, pa.ArrowException)  # of a file that cannot be read


class Column(Protocol):
    """A column of a table (`pyarrow.ChunkedArray`), or one to be made into one."""

    def to_pylist(self) -> list[Any]: ...

    def to_numpy(self) -> np.ndarray: ...


class Table(Protocol):
    """`pyarrow.Table`, as far as it is used here."""

    @property
    def column_names(self) -> list[str]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, name: str, /) -> Column: ...

    def to_pylist(self) -> list[dict[str, Any]]: ...


def table(columns: Mapping[str, Any], schema: Mapping[str, str]) -> Table:
    """A table of the schema's columns, from numpy arrays, lists, or what `lists` gives."""
    arrays = [pa.array(columns[name]).cast(_type(kind)) for name, kind in schema.items()]
    return pa.table(arrays, schema=pa.schema([(name, _type(kind)) for name, kind in schema.items()]))


def with_column(there: Table, name: str, values: Any, kind: str) -> Table:
    """The table with one column more, or another one in its place. values: None for a column of nulls."""
    whole, field = cast(pa.Table, there), pa.field(name, _type(kind))
    if values is None:
        values = pa.nulls(len(whole), field.type)
    array = values if isinstance(values, pa.ChunkedArray | pa.Array) else pa.array(values, field.type)
    if name in whole.column_names:
        return whole.set_column(whole.column_names.index(name), field, array)
    return whole.append_column(field, array)


def with_metadata(there: Table, metadata: Mapping[bytes, str] | None) -> Table:
    return cast(pa.Table, there).replace_schema_metadata(metadata)


def _type(kind: str) -> pa.DataType:
    if kind.startswith("list<"):
        return pa.list_(_type(kind.removeprefix("list<").removesuffix(">")))
    return pa.timestamp("ms", tz="UTC") if kind == "time" else pa.type_for_alias(kind)


# Lists


def lists(values: Tensor, keep: Tensor | None = None) -> Column:
    """A list per row of values (B, T), of the first few where `keep` is True. Raises ValueError for padding elsewhere."""
    if keep is None:
        keep = torch.ones_like(values, dtype=torch.bool)
    check_padding(keep)
    return cut(values[keep].numpy(), keep.sum(1).numpy())


def check_padding(keep: Tensor) -> None:
    if bool((keep != (torch.arange(keep.shape[1]) < keep.sum(1)[:, None])).any()):
        raise ValueError("padding that is not on the right cannot be stored.")


def cut(values: np.ndarray, lengths: np.ndarray) -> Column:
    """Values, one row's after the other's, as a list per row."""
    if len(values) >= 1 << 31:
        raise UserError(
            f"{len(values):,} kept entries in one shard of {len(lengths)} rollouts are too many. Take fewer prompts "
            "per shard, or a smaller top_k or top_p."
        )
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values))


def padded(column: Column, width: int, fill: int | bool, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """(B, width) values with `fill` on the right, and where they are not."""
    there = torch.arange(width) < torch.from_numpy(lengths(column))[:, None]
    rows = torch.full(there.shape, fill, dtype=dtype)
    entries = values(column)
    rows[there] = torch.from_numpy(entries.astype(np.int64) if entries.dtype == np.uint32 else entries).to(dtype)
    return rows, there


def lengths(column: Column) -> np.ndarray:
    """Of the lists."""
    chunks = cast(pa.ChunkedArray, column).chunks
    return np.concatenate([np.zeros(0, np.int64), *(c.value_lengths().to_numpy() for c in chunks)])


def values(column: Column) -> np.ndarray:
    """The entries of the lists, one list's after the other's."""
    chunks = [c.flatten().to_numpy(zero_copy_only=False) for c in cast(pa.ChunkedArray, column).chunks]
    return chunks[0].copy() if len(chunks) == 1 else np.concatenate(chunks)


# Files


def write(there: Table, file: IO[bytes]) -> None:
    pq.write_table(cast(pa.Table, there), file, compression="zstd")


@contextmanager
def written_in_parts(path: Path, first: Table | None) -> "Iterator[PartWriter]":
    """A parquet file of several tables with the columns of the first."""
    schema = pa.schema([]) if first is None else cast(pa.Table, first).schema
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        yield writer


class PartWriter(Protocol):
    def write_table(self, table: Table, /) -> None: ...


def read_metadata(path: Path) -> dict[bytes, bytes]:
    """From the file's footer alone. Raises one of ERRORS for a damaged file."""
    return pq.read_schema(path).metadata or {}


def read_names(path: Path) -> Sequence[str]:
    """Of the columns, from the file's footer alone. Raises one of ERRORS for a damaged file."""
    return pq.read_schema(path).names


def read_table(path: Path) -> Table:
    """Raises one of ERRORS for a damaged file."""
    try:
        # An open file: given a path, pyarrow would take `scores=1/` above it for a partition. One of pyarrow's own: its
        # threads may let go of the file after this returns, and letting go of Python's own while Python ends aborts.
        with pa.OSFile(str(path)) as file:
            return pq.read_table(file)
    except MemoryError as error:  # what a damaged size asks for
        raise OSError(f"{path} asks for more memory than there is") from error
