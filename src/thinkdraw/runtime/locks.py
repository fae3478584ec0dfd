"""Locks on files that hold between processes, containers and machines that share a disk, and end with their holder.

The kernel keeps them (`flock`; over NFS the file server does), so a killed process holds none. Process ids are not asked:
in another container or on another machine the same number is another process.
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
    """A lock file that this process holds. is_sure: False on a disk without locks, where others may hold it too."""

    path: Path
    descriptor: int
    is_sure: bool

    def release(self, remove: bool = True) -> None:
        """Let go of the file, and remove it before."""
        if self.descriptor in _descriptors:  # a forked child has none
            _descriptors.discard(self.descriptor)
            if remove:
                with suppress(OSError):
                    self.path.unlink()
            os.close(self.descriptor)


def take_lock(path: Path, create: bool = True) -> Lock | None:
    """Take the lock at `path`, or None where it is held. create: make the file; else FileNotFoundError where it is not."""
    while True:
        descriptor = os.open(path, os.O_RDWR | (os.O_CREAT if create else 0), 0o666)
        try:
            is_sure = _lock(descriptor)
            # Its last holder may have removed the file in the meantime: then this lock would guard nothing.
            is_there = os.path.samestat(os.fstat(descriptor), path.stat())
        except FileNotFoundError:
            is_sure = is_there = False
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError:
            os.close(descriptor)
            raise
        if is_there:
            _descriptors.add(descriptor)
            return Lock(path, descriptor, is_sure)
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """False where the disk has no locks."""
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


def _let_go_in_child() -> None:
    """Close what came through a fork: a child that outlives its parent would go on holding it."""
    for descriptor in _descriptors:
        with suppress(OSError):
            os.close(descriptor)
    _descriptors.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go_in_child)
