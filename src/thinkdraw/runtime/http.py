"""Asking a server over HTTP: one client for judges, rewards, teachers and paraphrases.

It waits no longer than it is told, tries again after growing pauses, keeps quiet for a while towards a server that is
gone, takes no answer without end, and never repeats a key in an error.
"""

import math
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

from thinkdraw.errors import UserError
from thinkdraw.runtime.endpoints import doubled_s, is_loopback, retry_after_s

try:
    import httpx
except ModuleNotFoundError as absent:
    raise UserError(
        "asking a server needs the package httpx, which is not installed. Run `pip install 'thinkdraw[remote]'`."
    ) from absent

MAX_REPLY = 64_000_000  # bytes
# The request is at fault, and would be again; what is missing here is about time: 408, 409, 425 and 429.
FINAL = frozenset(range(300, 500)) - {408, 409, 425, 429}
_JITTER = random.Random()  # of its own: the global one belongs to the run's seed
_T = TypeVar("_T")


class NoAnswer(Exception):
    """A request that got no usable answer. reason: a few words, for counting. status: HTTP's, None where none came."""

    def __init__(self, reason: str, detail: str = "", status: int | None = None, retry_after_s: float | None = None):
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason, self.detail, self.status, self.retry_after_s = reason, detail, status, retry_after_s


@dataclass(frozen=True)
class Patience:
    """timeout_s: without a byte from the server. deadline_s: for a whole answer.

    retries: more tries of a request, after pauses of about backoff_s · 2^n, at most max_pause_s. final: statuses that are
    not tried again. break_after: requests in a row that failed with all their tries, after which nothing is asked for
    break_s seconds; None goes on asking.
    """

    timeout_s: float
    retries: int = 4
    backoff_s: float = 0.5
    break_after: int | None = None
    break_s: float = 30.0
    max_pause_s: float = 60.0
    deadline_s: float = math.inf
    final: frozenset[int] = FINAL

    def pause_s(self, tries: int, retry_after_s: float | None = None) -> float:
        """Between half and all of the doubled pause, and no less than the server asks for; both are bounded.

        Half to all, so that many clients do not come back at once.
        """
        pause_s = doubled_s(self.backoff_s, tries, self.max_pause_s) * _JITTER.uniform(0.5, 1.0)
        return max(pause_s, min(retry_after_s or 0.0, self.max_pause_s))


class Breaker:
    """Closed while answers come; open for break_s after `break_after` failures in a row, and then after each one more."""

    def __init__(self, patience: Patience):
        self._patience, self._lock = patience, threading.Lock()
        self._failures, self._open_until = 0, 0.0

    @property
    def is_open(self) -> bool:
        with self._lock:
            return time.monotonic() < self._open_until

    def count(self, answered: bool) -> None:
        most = self._patience.break_after
        with self._lock:
            self._failures = 0 if answered else self._failures + 1
            if most is not None and self._failures >= most:
                self._open_until = time.monotonic() + self._patience.break_s


class HttpClient:
    """One server at `url`, asked by several threads. token: sent as a bearer's; None or "" sends none."""

    def __init__(self, url: str, token: str | None, patience: Patience, max_connections: int = 8):
        self.url, self.patience, self.breaker = url.rstrip("/"), patience, Breaker(patience)
        self._token = token
        self._client = httpx.Client(**_settings(self.url, token, patience, max_connections))

    def ask(
        self, path: str, read: Callable[[bytes], _T], make_body: Callable[[], bytes] | None = None,
        retries: int | None = None,
    ) -> _T:  # fmt: skip
        """What `read` makes of the answer. Raises NoAnswer when the last try failed too.

        make_body: of a POST, called once; a GET without. read: raises NoAnswer for what it cannot use, which is then
        asked for again. retries: in place of the patience's.
        """
        if self.breaker.is_open:
            raise NoAnswer(f"{self.url} was not asked", "it has not answered lately")
        body = make_body() if make_body is not None else None
        retries = self.patience.retries if retries is None else retries
        for tries in range(retries + 1):
            try:
                answer = read(self.send(path, body))
            except NoAnswer as failure:
                if failure.status in self.patience.final:
                    raise
                if tries == retries:
                    self.breaker.count(answered=False)
                    raise
                time.sleep(self.patience.pause_s(tries, failure.retry_after_s))
            else:
                self.breaker.count(answered=True)
                return answer
        raise AssertionError("unreachable")

    def send(self, path: str, body: bytes | None = None) -> bytes:
        """The body of a good response, whole and in time, to one try. Raises NoAnswer."""
        reply = _Reply(self.patience, self._token)
        try:
            with self._client.stream("GET" if body is None else "POST", self.url + path, content=body) as response:
                for part in response.iter_bytes():
                    reply.take(part)
        except httpx.HTTPError as error:
            raise reply.lost(error) from error
        return reply.content_of(response)

    def close(self) -> None:
        self._client.close()


class AsyncHttpClient:
    """As `HttpClient.send`, for a loop that counts, waits and tries again by rules of its own."""

    def __init__(self, url: str, token: str | None, patience: Patience, max_connections: int = 8):
        self.url, self.patience, self._token = url.rstrip("/"), patience, token
        self._client = httpx.AsyncClient(**_settings(self.url, token, patience, max_connections))

    async def send(self, path: str, body: bytes | None = None) -> bytes:
        reply = _Reply(self.patience, self._token)
        try:
            method = "GET" if body is None else "POST"
            async with self._client.stream(method, self.url + path, content=body) as response:
                async for part in response.aiter_bytes():
                    reply.take(part)
        except httpx.HTTPError as error:
            raise reply.lost(error) from error
        return reply.content_of(response)

    async def close(self) -> None:
        await self._client.aclose()


class _Reply:
    """What comes of one answer, counted and timed."""

    def __init__(self, patience: Patience, token: str | None) -> None:
        self._content, self._token = bytearray(), token
        self._deadline = time.monotonic() + patience.deadline_s

    def take(self, part: bytes) -> None:
        self._content += part
        if time.monotonic() > self._deadline or len(self._content) > MAX_REPLY:
            raise NoAnswer("an answer without end")

    def lost(self, error: httpx.HTTPError) -> NoAnswer:
        reason = "timeout" if isinstance(error, httpx.TimeoutException) else "no connection"
        return NoAnswer(reason, self._in_a_line(f"{type(error).__name__} {error}"))

    def content_of(self, response: httpx.Response) -> bytes:
        if response.status_code == 200:
            return bytes(self._content)
        is_page = response.headers.get("content-type", "").startswith("text/html")
        detail = "" if is_page else self._in_a_line(self._content[:4000].decode(errors="replace"))
        status = response.status_code
        raise NoAnswer(f"HTTP {status}", detail, status, retry_after_s(response.headers))

    def _in_a_line(self, text: str) -> str:
        text = text.replace(self._token, "***") if self._token else text
        return " ".join(text.split())[:300]


def _settings(url: str, token: str | None, patience: Patience, max_connections: int) -> dict[str, Any]:
    """Of httpx's clients."""
    bearer = {"authorization": f"Bearer {token}"} if token else {}
    return {
        "headers": {"content-type": "application/json"} | bearer,
        "timeout": patience.timeout_s,
        "limits": httpx.Limits(max_connections=max_connections, max_keepalive_connections=max_connections),
        "trust_env": not is_loopback(urlsplit(url).hostname or ""),  # a proxy for the internet cannot see this machine
    }
