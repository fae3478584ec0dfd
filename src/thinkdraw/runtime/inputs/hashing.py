"""Content hashes: a cache is used while the hashes of its sources are the same."""

import hashlib
import json
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from thinkdraw.errors import UserError
from thinkdraw.runtime.files import atomic_write_text

SOURCES_HASH = "made_of"  # key of a cache file's metadata: the hash of everything that it was made of
_SETTLED_S = (
    2.0  # a file that changed less than this long ago may change again within one tick of the file system's clock
)


def content_digest(parts: Iterable[object]) -> str:
    """Hash content to 32 hex digits.

    Content is tensors (with dtype and shape), bytes, texts, and whatever else JSON can represent.
    """
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, Tensor):
            digest.update(f"{part.dtype}{tuple(part.shape)}".encode())
            data = part.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data
        elif isinstance(part, bytes):
            data = part
        else:
            text = part if isinstance(part, str) else json.dumps(part, sort_keys=True, default=str)
            data = text.encode("utf-8", "surrogatepass")
        digest.update(f"{len(data)}:".encode())  # without lengths, ("ab", "c") and ("a", "bc") would hash alike
        digest.update(data)
    return digest.hexdigest()[:32]


class Digests:
    """Content hashes of files; a file is read again only if its stamp has changed.

    memory: a file that remembers hashes between processes, a line per file; None remembers within this process only.
    """

    def __init__(self, memory: Path | None = None) -> None:
        self.memory, self._is_new = memory, False
        self._known: dict[str, tuple[str, str]] = {}  # path → (stamp, hash)
        with suppress(OSError, ValueError, TypeError):  # a memory file that cannot be read is written anew
            if memory is not None:
                lines = memory.read_text(encoding="utf-8").splitlines()
                self._known = {path: (stamp, digest) for path, stamp, digest in map(json.loads, lines)}

    def of(self, file: Path) -> str:
        """Return the SHA-256 of the file's bytes. Raises OSError."""
        name, stamp = str(file.resolve()), stamp_of(file)
        if stamp is not None and (known := self._known.get(name)) and known[0] == stamp:
            return known[1]
        with file.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
        if stamp is not None and stamp == stamp_of(file):
            self._known[name], self._is_new = (stamp, digest), True
        return digest

    def keep(self) -> None:
        """Write the hashes to the memory file, if its folder may be written to."""
        if self.memory is not None and self._is_new:
            lines = (json.dumps([path, *known], ensure_ascii=False) + "\n" for path, known in self._known.items())
            with suppress(UserError):
                atomic_write_text(self.memory, "".join(lines))
            self._is_new = False


def stamp_of(file: Path) -> str | None:
    """Return what changes with a file's content: size, times and inode.

    None for a file that changed just now: it may change again without its times showing it.
    """
    status = file.stat()
    if time.time() - max(status.st_mtime, status.st_ctime) < _SETTLED_S:
        return None
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"
