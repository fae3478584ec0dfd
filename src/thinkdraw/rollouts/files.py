"""Files of a store, each written once and as a whole."""

import errno
import os
from pathlib import Path

from thinkdraw.errors import UserError
from thinkdraw.rollouts import arrow
from thinkdraw.runtime.files import atomic_file

# Error numbers of file systems without hard links.
_NO_LINKS = {errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EMLINK}


class DamagedError(UserError):
    """A file of a store is missing, truncated or changed; other files are intact."""


class NameTakenError(Exception):
    """Another writer created the file first."""


def write_new(path: Path, table: arrow.Table) -> None:
    """Write a parquet file that does not exist yet, all of it or nothing.

    Raises NameTakenError if it exists: of two writers one wins, and nothing is overwritten. A file system without hard
    links cannot promise this, so let only one process write to a store there.
    Raises UserError where the disk refuses.
    """
    with atomic_file(path) as temporary:
        with temporary.open("wb") as file:
            arrow.write(table, file)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)  # unlike a rename, a link fails where the name exists
        except FileExistsError:
            raise NameTakenError from None
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            if path.exists():
                raise NameTakenError from None
