"""File locks that hold across processes, containers and machines sharing a disk.

The kernel keeps them (`flock`; over NFS the file server does), so a killed process holds none. Process ids are not used: in another
container or on another machine the same number is another process.
"""

import errno
import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}
_descriptors: set[int] = set()


@dataclass(frozen=True)
class Lock:
    """A lock file that this process holds.

    is_exclusive: False on a disk without locks, where others may hold it too.
    """

    path: Path
    descriptor: int
    is_exclusive: bool

    def release(self, remove: bool = True) -> None:
        """Remove the file, then release the lock."""
        if self.descriptor in _descriptors:  # not in a forked child, which has closed its copies
            _descriptors.discard(self.descriptor)
            if remove:
                with suppress(OSError):
                    self.path.unlink()
            os.close(self.descriptor)


def take_lock(path: Path, create: bool = True) -> Lock | None:
    """Take the lock at `path`; None where another process holds it.

    create: create a missing file; otherwise a missing file raises FileNotFoundError.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | (os.O_CREAT if create else 0), 0o666)
        try:
            is_exclusive = _lock(descriptor)
            # The last holder may have removed the file since it was opened. A lock on a removed file would guard nothing.
            is_there = os.path.samestat(os.fstat(descriptor), path.stat())
        except FileNotFoundError:
            is_exclusive = is_there = False
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError:
            os.close(descriptor)
            raise
        if is_there:
            _descriptors.add(descriptor)
            return Lock(path, descriptor, is_exclusive)
        os.close(descriptor)


def is_locked(path: Path) -> bool:
    """Tell whether another process holds the lock at `path`.

    True where the disk has no locks. Raises OSError for a missing file.
    """
    descriptor = os.open(path, os.O_RDWR)
    try:
        return not _lock(descriptor)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """Lock the open file; False where the disk has no locks."""
    if sys.platform == "win32":
        return False
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return False
        raise
    return True


def _close_in_child() -> None:
    """Close locks inherited by a fork: a child could outlive its parent and hold them."""
    for descriptor in _descriptors:
        with suppress(OSError):
            os.close(descriptor)
    _descriptors.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)
