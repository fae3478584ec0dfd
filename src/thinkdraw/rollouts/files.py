"""Files of a store: they appear whole and once, and a damaged one is named."""

import errno
import os
from pathlib import Path

from thinkdraw.errors import UserError
from thinkdraw.rollouts import arrow
from thinkdraw.runtime.files import atomic_file

# What file systems without hard links answer.
_NO_LINKS = {errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EMLINK}


class DamagedError(UserError):
    """A file of a store is missing, truncated or changed; the other files are not affected."""


class TakenError(Exception):
    """Another writer was first."""


def write_new(path: Path, table: arrow.Table) -> None:
    """Write a parquet file that is not there yet, all of it or nothing.

    Raises TakenError if it is there: of two writers one wins, and nothing is overwritten. A file system without hard
    links cannot promise that, so give a store there one writer at a time. Raises UserError where the disk refuses.
    """
    with atomic_file(path) as temporary:
        with temporary.open("wb") as file:
            arrow.write(table, file)
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
