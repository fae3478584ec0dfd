"""Parquet files of a store: they appear whole and once, and a damaged one is named."""

import errno
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from thinkdraw.errors import UserError
from thinkdraw.runtime.files import atomic_file

# What file systems without hard links answer.
_NO_LINKS = {errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EMLINK}


class DamagedError(UserError):
    """A file of a store is missing, truncated or changed; the other files are not affected."""


class TakenError(Exception):
    """Another writer was first."""


def write_new(path: Path, table: pa.Table) -> None:
    """Write a parquet file that is not there yet, all of it or nothing.

    Raises TakenError if it is there: of two writers one wins, and nothing is overwritten. A file system without hard
    links cannot promise that, so give a store there one writer at a time. Raises UserError where the disk refuses.
    """
    with atomic_file(path) as temporary:
        with temporary.open("wb") as file:
            pq.write_table(table, file, compression="zstd")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)  # unlike a rename, it fails where the name is taken
        except FileExistsError:
            raise TakenError from None
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            if path.exists():
                raise TakenError from None


def read_schema(path: Path) -> pa.Schema:
    """Only the file's footer is read. Raises OSError or ArrowException for a damaged file."""
    return pq.read_schema(path)


def read_table(path: Path) -> pa.Table:
    """Raises OSError or ArrowException for a damaged file."""
    # An open file: given a path, pyarrow would take `scores=1/` above it for a partition. One of pyarrow's own: its
    # threads may let go of the file after this returns, and letting go of Python's own while Python ends aborts.
    with pa.OSFile(str(path)) as file:
        return pq.read_table(file)
