"""Reads the bodies of requests: in time, within a length, within a memory budget."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import Request
from starlette.requests import ClientDisconnect

_MIN_BYTES_PER_S = 20_000  # on average over the body; slower clients are dropped


class Refusal(Exception):
    """A request that is not answered, and the HTTP status that says so."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status


class MemoryBudget:
    """Bytes that may be in memory at once; who finds none free waits in turn.

    patience_s: how long one waits.
    """

    def __init__(self, total: int, patience_s: float) -> None:
        self.total, self.patience_s = total, patience_s
        self._left = total
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def hold(self, size: int) -> AsyncIterator[None]:
        """Hold `size` bytes inside the block. Raises Refusal if they are not free in time."""
        size = min(size, self.total)
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((size, turn))
        self._admit()
        try:
            try:
                async with asyncio.timeout(self.patience_s):
                    await turn
            except TimeoutError:
                raise Refusal(503, f"{len(self._waiting)} requests wait to be read. Ask again later.") from None
            yield
        finally:
            if turn.done() and not turn.cancelled():
                self._left += size
            else:
                self._waiting = deque(waiting for waiting in self._waiting if waiting[1] is not turn)
            self._admit()

    def _admit(self) -> None:
        while self._waiting and self._waiting[0][0] <= self._left:
            size, turn = self._waiting.popleft()
            if not turn.done():
                self._left -= size
                turn.set_result(None)


def declared_length(request: Request, limit: int) -> int:
    """Return the body's length as the request's header says, or `limit` without one.

    Raises Refusal for more than `limit`.
    """
    header = request.headers.get("content-length", "")
    # A header that is no number of fewer than 20 digits counts as too long.
    length = int(header) if header.isdecimal() and len(header) < 20 else limit + 1 if header else limit
    if length > limit:
        raise _too_long(limit)
    return length


async def read_body(request: Request, limit: int, silent_s: float) -> bytes:
    """Read the body of a request.

    silent_s: seconds that may pass between two chunks. On the whole the body has to come at 20 kB a second, too.
    Raises Refusal for more than `limit` bytes, before they are all in memory, and for a body that does not come.
    """
    body, chunks = bytearray(), request.stream()
    loop = asyncio.get_running_loop()
    began = loop.time()
    try:
        while True:
            async with asyncio.timeout_at(min(loop.time(), began + len(body) / _MIN_BYTES_PER_S) + silent_s):
                chunk = await anext(chunks, None)
            if chunk is None:
                return bytes(body)
            body += chunk
            if len(body) > limit:
                raise _too_long(limit)
    except TimeoutError:
        raise Refusal(408, f"The request does not come: {len(body)} bytes in {loop.time() - began:.0f} s.") from None
    except ClientDisconnect as error:
        raise Refusal(400, "The request broke off.") from error


def _too_long(limit: int) -> Refusal:
    return Refusal(413, f"This server takes requests of {limit} bytes. Send fewer rows, or raise limits.bytes there.")
