# pyright: basic
"""The few functions of pyarrow that a store needs, with types.

A schema is name → kind. A kind is one of pyarrow's type names (int64, string, …), "time", or "list<…>" of a kind.
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

ERRORS: tuple[type[Exception], ...] = (OSError, pa.ArrowException)  # raised for a file that cannot be read


class Column(Protocol):
    """A column of a table (`pyarrow.ChunkedArray`), or an array to make one of."""

    def to_pylist(self) -> list[Any]: ...

    def to_numpy(self) -> np.ndarray: ...


class Table(Protocol):
    """The part of `pyarrow.Table` that is used here."""

    @property
    def column_names(self) -> list[str]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, name: str, /) -> Column: ...

    def to_pylist(self) -> list[dict[str, Any]]: ...


def table(columns: Mapping[str, Any], schema: Mapping[str, str]) -> Table:
    """Make a table with the schema's columns.

    columns: numpy arrays, lists, or results of `to_lists`.
    """
    arrays = [pa.array(columns[name]).cast(_type(kind)) for name, kind in schema.items()]
    return pa.table(arrays, schema=pa.schema([(name, _type(kind)) for name, kind in schema.items()]))


def with_column(base: Table, name: str, values: Any, kind: str) -> Table:
    """Add a column to a table, or replace the one of that name.

    values: None for a column of nulls.
    """
    table, field = cast(pa.Table, base), pa.field(name, _type(kind))
    if values is None:
        values = pa.nulls(len(table), field.type)
    array = values if isinstance(values, pa.ChunkedArray | pa.Array) else pa.array(values, field.type)
    if name in table.column_names:
        return table.set_column(table.column_names.index(name), field, array)
    return table.append_column(field, array)


def with_metadata(base: Table, metadata: Mapping[bytes, str] | None) -> Table:
    """Replace the metadata in a table's schema."""
    return cast(pa.Table, base).replace_schema_metadata(metadata)


def _type(kind: str) -> pa.DataType:
    """Look up pyarrow's type of a kind."""
    if kind.startswith("list<"):
        return pa.list_(_type(kind.removeprefix("list<").removesuffix(">")))
    return pa.timestamp("ms", tz="UTC") if kind == "time" else pa.type_for_alias(kind)


# Lists


def to_lists(values: Tensor, keep: Tensor | None = None) -> Column:
    """Make a list per row of values (B, T), of the first entries where `keep` is True.

    Raises ValueError where `keep` has a gap: only padding on the right can be left out.
    """
    if keep is None:
        keep = torch.ones_like(values, dtype=torch.bool)
    check_padding(keep)
    return split_lists(values[keep].numpy(), keep.sum(1).numpy())


def check_padding(keep: Tensor) -> None:
    """Raise ValueError unless all padding is on the right."""
    if bool((keep != (torch.arange(keep.shape[1]) < keep.sum(1)[:, None])).any()):
        raise ValueError("rows have padding that is not on the right, which cannot be stored.")


def split_lists(values: np.ndarray, lengths: np.ndarray) -> Column:
    """Cut a flat array of values into one list per row.

    lengths: (B,) entries of each row.
    """
    if len(values) >= 1 << 31:
        raise UserError(
            f"{len(values):,} list entries in one shard of {len(lengths)} rollouts exceed arrow's limit of 2^31. "
            "Sample fewer prompts per shard, or with a smaller top_k or top_p."
        )
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values))


def to_padded(column: Column, width: int, fill: int | bool, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Read lists as a (B, width) tensor padded with `fill`, and a mask, True = real."""
    mask = torch.arange(width) < torch.from_numpy(lengths(column))[:, None]
    rows = torch.full(mask.shape, fill, dtype=dtype)
    entries = values(column)
    # torch has no arithmetic on uint32, so ids are read as int64.
    rows[mask] = torch.from_numpy(entries.astype(np.int64) if entries.dtype == np.uint32 else entries).to(dtype)
    return rows, mask


def lengths(column: Column) -> np.ndarray:
    """Return the length of each list."""
    chunks = cast(pa.ChunkedArray, column).chunks
    return np.concatenate([np.zeros(0, np.int64), *(c.value_lengths().to_numpy() for c in chunks)])


def values(column: Column) -> np.ndarray:
    """Return the entries of all lists, one list after another."""
    chunks = [c.flatten().to_numpy(zero_copy_only=False) for c in cast(pa.ChunkedArray, column).chunks]
    return chunks[0].copy() if len(chunks) == 1 else np.concatenate(chunks)


# Files


def write(content: Table, file: IO[bytes]) -> None:
    """Write a table as parquet."""
    pq.write_table(cast(pa.Table, content), file, compression="zstd")


@contextmanager
def table_writer(path: Path, first: Table | None) -> "Iterator[TableWriter]":
    """Open a parquet file that takes several tables with the columns of the first."""
    schema = pa.schema([]) if first is None else cast(pa.Table, first).schema
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        yield writer


class TableWriter(Protocol):
    """The part of `pyarrow.parquet.ParquetWriter` that is used here."""

    def write_table(self, table: Table, /) -> None:
        """Append a table."""
        ...


def read_metadata(path: Path) -> dict[bytes, bytes]:
    """Read the metadata from a file's footer alone.

    Raises one of ERRORS for a damaged file.
    """
    return pq.read_schema(path).metadata or {}


def read_names(path: Path) -> Sequence[str]:
    """Read the names of the columns from a file's footer alone.

    Raises one of ERRORS for a damaged file.
    """
    return pq.read_schema(path).names


def read_table(path: Path) -> Table:
    """Read a parquet file. Raises one of ERRORS for a damaged file."""
    try:
        # pyarrow gets an open file, because in a path it would take a folder `scores=1/` for a partition. It is one
        # of pyarrow's own files: pyarrow's threads may close it after this returns, and closing a Python file while
        # the interpreter shuts down aborts the process.
        with pa.OSFile(str(path)) as file:
            return pq.read_table(file)
    except MemoryError as error:  # a damaged length field
        raise OSError(f"{path} states a size beyond the machine's memory") from error
