"""Limits of uvicorn's connections: how many there are, and how long one may idle.

A connection is idle while its client is due to act: to send the head of a request, or to read the rest of an answer. An
idle connection ends after a while, and earlier where others need its slot. A request that is being answered never ends
so.
"""

import asyncio
import resource
from contextlib import suppress

from uvicorn import Config
from uvicorn.protocols.http.h11_impl import H11Protocol

_OTHER_FILES = 128  # libraries, weights, logs


class Connection(H11Protocol):
    """One client's connection. `uvicorn_config` sets max_connections and silent_s."""

    max_connections, silent_s = 512, 10.0
    _idle_since: float | None = None
    _seen_cycle: object = None
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._check_idle()
        if len(self.connections) > self.max_connections:
            earlier = [c for c in self.connections if isinstance(c, Connection) and c is not self]
            # A client that still reads an answer has unsent bytes in the buffer; it is not the one to drop.
            if idle := [c for c in earlier if c._is_idle and not c.transport.get_write_buffer_size()]:
                min(idle, key=lambda connection: connection._idle_since or self.loop.time()).transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer:
            self._timer.cancel()
        super().connection_lost(exc)

    @property
    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_started

    def _check_idle(self) -> None:
        """End the connection if it idles for too long, else check again later.

        Only whole requests count as activity: a client cannot stay by sending a byte now and then.
        """
        now = self.loop.time()
        if not self._is_idle:
            self._idle_since = None
        elif self._idle_since is None or self._seen_cycle is not self.cycle:
            self._idle_since, self._seen_cycle = now, self.cycle
        elif now - self._idle_since > self.silent_s:
            self.transport.abort()
            return
        self._timer = self.loop.call_later(self.silent_s / 5, self._check_idle)


def uvicorn_config(app: object, max_connections: int, silent_s: float, shutdown_s: int) -> Config:
    """Make uvicorn's settings for so many connections of limited silence."""
    _allow_open_files(max_connections + _OTHER_FILES)
    protocol = type("Connection", (Connection,), {"max_connections": max_connections, "silent_s": silent_s})
    return Config(
        app, http=protocol, ws="none", log_level="warning", access_log=False,  # type: ignore[arg-type]
        timeout_keep_alive=int(silent_s) + 1, timeout_graceful_shutdown=shutdown_s,
    )  # fmt: skip


def _allow_open_files(count: int) -> None:
    """Raise this process's own limit of open files, as far as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < count:
        limit = count if hard == resource.RLIM_INFINITY else min(count, hard)
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
