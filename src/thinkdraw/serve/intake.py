"""Bodies of requests on their way into memory: in time, within a length, and only as many at once as there is room for."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import Request
from starlette.requests import ClientDisconnect

_SLOWEST = 20_000  # bytes a second, on the mean


class Refusal(Exception):
    """A request that is not answered, and the HTTP status that says so."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status


class Room:
    """Bytes that may be in memory at once; who finds no room waits for it, in turn, `patience_s` at most."""

    def __init__(self, total: int, patience_s: float) -> None:
        self.total, self.patience_s = total, patience_s
        self._left = total
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def of(self, size: int) -> AsyncIterator[None]:
        """Hold room for `size` bytes inside the block. Raises Refusal where there is none in time."""
        size = min(size, self.total)
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((size, turn))
        self._next()
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
            self._next()

    def _next(self) -> None:
        while self._waiting and self._waiting[0][0] <= self._left:
            size, turn = self._waiting.popleft()
            if not turn.done():
                self._left -= size
                turn.set_result(None)


def said_length(request: Request, limit: int) -> int:
    """What a request says of its length; `limit` where it does not. Raises Refusal for more."""
    said = request.headers.get("content-length", "")
    length = int(said) if said.isdecimal() and len(said) < 20 else limit + 1 if said else limit
    if length > limit:
        raise _too_long(limit)
    return length


async def read_body(request: Request, limit: int, silent_s: float) -> bytes:
    """The body. Raises Refusal for more than `limit` bytes, before they are all in memory, and for one that does not come.

    silent_s: between two parts; on the whole it also has to come at 20 kB a second.
    """
    body, parts = bytearray(), request.stream()
    loop = asyncio.get_running_loop()
    began = loop.time()
    try:
        while True:
            async with asyncio.timeout_at(min(loop.time(), began + len(body) / _SLOWEST) + silent_s):
                part = await anext(parts, None)
            if part is None:
                return bytes(body)
            body += part
            if len(body) > limit:
                raise _too_long(limit)
    except TimeoutError:
        raise Refusal(408, f"The request does not come: {len(body)} bytes in {loop.time() - began:.0f} s.") from None
    except ClientDisconnect as error:
        raise Refusal(400, "The request broke off.") from error


def _too_long(limit: int) -> Refusal:
    return Refusal(413, f"This server takes requests of {limit} bytes. Send fewer rows, or raise limits.bytes there.")
