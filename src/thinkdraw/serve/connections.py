"""How long a client may keep the server waiting, and how many may be there: rules for uvicorn's connections.

A connection is idle while it owes the server something: the head of a request, or room for the rest of an answer. Idle
ones end after a while, and earlier where others need their place; what is being answered is never ended.
"""

import asyncio
import resource
from contextlib import suppress

from uvicorn import Config
from uvicorn.protocols.http.h11_impl import H11Protocol

_OTHER_FILES = 128  # libraries, weights, logs


class Connection(H11Protocol):
    """One client's connection. most, silent_s: set by `listening_settings`."""

    most, silent_s = 512, 10.0
    _idle_since: float | None = None
    _seen: object = None
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._look()
        if len(self.connections) > self.most:
            others = [c for c in self.connections if isinstance(c, Connection) and c is not self]
            if idle := [c for c in others if c._is_idle and not c.transport.get_write_buffer_size()]:
                min(idle, key=lambda connection: connection._idle_since or self.loop.time()).transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer:
            self._timer.cancel()
        super().connection_lost(exc)

    @property
    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_started

    def _look(self) -> None:
        """End it where it is idle for too long, else look again later; what drips in meanwhile makes no difference."""
        now = self.loop.time()
        if not self._is_idle:
            self._idle_since = None
        elif self._idle_since is None or self._seen is not self.cycle:
            self._idle_since, self._seen = now, self.cycle
        elif now - self._idle_since > self.silent_s:
            self.transport.abort()
            return
        self._timer = self.loop.call_later(self.silent_s / 5, self._look)


def listening_settings(app: object, most: int, silent_s: float, shutdown_s: int) -> Config:
    """Uvicorn's settings for so many connections, each silent for so long at most."""
    _allow_open_files(most + _OTHER_FILES)
    protocol = type("Connection", (Connection,), {"most": most, "silent_s": silent_s})
    return Config(
        app, http=protocol, ws="none", log_level="warning", access_log=False,  # type: ignore[arg-type]
        timeout_keep_alive=int(silent_s) + 1, timeout_graceful_shutdown=shutdown_s,
    )  # fmt: skip


def _allow_open_files(count: int) -> None:
    """Raise this process's own limit, as far as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < count:
        most = count if hard == resource.RLIM_INFINITY else min(count, hard)
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
