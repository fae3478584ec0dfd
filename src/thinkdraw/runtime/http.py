"""The one HTTP client for judges, rewards, teachers and paraphrases.

It alone sends API keys. It limits waiting time and the size of answers, packed or not. It retries with growing pauses, and stops
asking a failed server for a while. It follows no redirect, and masks its key where a server repeats it.
"""

import asyncio
import base64
import json
import random
import re
import threading
import time
import zlib
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

from thinkdraw.errors import UserError
from thinkdraw.runtime.endpoints import backoff_pause_s, is_loopback, mask_secrets, retry_after_s

try:
    import httpx
except ModuleNotFoundError as absent:
    raise UserError(
        "requests to a server need the package httpx, which is not installed. Run `pip install 'thinkdraw[remote]'`."
    ) from absent

NO_CONNECTION = "no connection"
MAX_REPLY = 8_000_000  # bytes, unpacked
# The request itself is at fault, and a retry would fail again. Not so 408, 409, 425 and 429, which ask to come back later.
FINAL = frozenset(range(300, 500)) - {408, 409, 425, 429}
_JITTER = random.Random()  # its own generator, because the global one follows the run's seed
_T = TypeVar("_T")


class NoAnswer(Exception):
    """A request that got no usable answer.

    reason: a few words, for counting. status: the HTTP status, None where none came.
    """

    def __init__(self, reason: str, detail: str = "", status: int | None = None, retry_after_s: float | None = None):
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason, self.detail, self.status, self.retry_after_s = reason, detail, status, retry_after_s


@dataclass(frozen=True)
class RetryPolicy:
    """How long to wait for an answer, and how often to ask again.

    timeout_s: for a whole answer, however slowly it arrives. retries: further tries of a request, after pauses of about
    backoff_s · 2^n, at most max_pause_s. final: statuses that are not tried again. break_after: so many requests in a row without an
    answer stop all asking for break_s seconds; None goes on asking.
    """

    timeout_s: float
    retries: int = 4
    backoff_s: float = 0.5
    break_after: int | None = None
    break_s: float = 30.0
    max_pause_s: float = 60.0
    final: frozenset[int] = FINAL

    def pause_s(self, tries: int, retry_after_s: float | None = None) -> float:
        """Draw a pause of half to all of the doubled one.

        It is no shorter than the server asks for (`retry_after_s`); both are at most max_pause_s. It is random so that many clients do not
        come back at once.
        """
        pause_s = backoff_pause_s(self.backoff_s, tries, self.max_pause_s) * _JITTER.uniform(0.5, 1.0)
        return max(pause_s, min(retry_after_s or 0.0, self.max_pause_s))


class CircuitBreaker:
    """Stops requests to a server that has failed often.

    It is closed while answers come. After `break_after` failures in a row it opens for break_s seconds, and again after each further
    failure.
    """

    def __init__(self, retry_policy: RetryPolicy):
        self._retry_policy, self._lock = retry_policy, threading.Lock()
        self._failures, self._open_until = 0, 0.0

    @property
    def is_open(self) -> bool:
        with self._lock:
            return time.monotonic() < self._open_until

    def count(self, answered: bool) -> None:
        """Count a request's outcome."""
        most = self._retry_policy.break_after
        with self._lock:
            self._failures = 0 if answered else self._failures + 1
            if most is not None and self._failures >= most:
                self._open_until = time.monotonic() + self._retry_policy.break_s


class HttpClient:
    """A client of one server at `url`, for use by several threads.

    token: sent as a bearer token; None or "" sends none.
    """

    def __init__(self, url: str, token: str | None, retry_policy: RetryPolicy, max_connections: int = 8):
        self._client = AsyncHttpClient(url, token, retry_policy, max_connections)
        self.url, self.retry_policy, self.breaker = self._client.url, retry_policy, CircuitBreaker(retry_policy)
        self.sends_key = bool(token)

    def ask(
        self, path: str, read: Callable[[bytes], _T], make_body: Callable[[], bytes] | None = None,
        retries: int | None = None,
    ) -> _T:  # fmt: skip
        """Ask, and return what `read` makes of the answer.

        make_body: makes the body of a POST, and is called once; None sends a GET. read: raises NoAnswer for an answer that it cannot use,
        which counts as a failed try. retries: replaces the policy's. Raises NoAnswer when the last try has failed too.
        """
        if self.breaker.is_open:
            raise NoAnswer(f"{self.url} was not asked", "its last requests failed")
        body = make_body() if make_body is not None else None
        retries = self.retry_policy.retries if retries is None else retries
        for tries in range(retries + 1):
            try:
                answer = read(self.send(path, body))
            except NoAnswer as failure:
                if failure.status in self.retry_policy.final:
                    raise
                if tries == retries:
                    self.breaker.count(answered=False)
                    raise
                time.sleep(self.retry_policy.pause_s(tries, failure.retry_after_s))
            else:
                self.breaker.count(answered=True)
                return answer
        raise AssertionError("unreachable")

    def send(self, path: str, body: bytes | None = None) -> bytes:
        """Send one request and return the body of a good response. Raises NoAnswer."""
        return _run_in_loop(self._client.send(path, body))

    def close(self) -> None:
        _run_in_loop(self._client.close())


class AsyncHttpClient:
    """Sends as `HttpClient.send` does, for a loop with its own rules of retrying."""

    def __init__(self, url: str, token: str | None, retry_policy: RetryPolicy, max_connections: int = 8):
        self.url, self._timeout_s, self._masked = url.rstrip("/"), retry_policy.timeout_s, _mask(token)
        bearer = {"authorization": f"Bearer {token}"} if token else {}
        self._client = httpx.AsyncClient(
            headers={"content-type": "application/json", "accept-encoding": "identity"} | bearer,
            timeout=retry_policy.timeout_s,
            limits=httpx.Limits(max_connections=max_connections, max_keepalive_connections=max_connections),
            trust_env=not is_loopback(urlsplit(url).hostname or ""),  # a proxy for the internet cannot see this machine
        )

    async def send(self, path: str, body: bytes | None = None) -> bytes:
        """Send one request and return the body of a good response. Raises NoAnswer."""
        try:
            async with asyncio.timeout(self._timeout_s):
                method = "GET" if body is None else "POST"
                async with self._client.stream(method, self.url + path, content=body) as response:
                    content = await _read_body(response)
        except (TimeoutError, httpx.TimeoutException) as error:
            raise NoAnswer("timeout", f"no whole answer in {self._timeout_s:g} s") from error
        except (httpx.HTTPError, httpx.StreamError) as error:
            message = self._masked(f"{type(error).__name__} {error}".encode(), False)
            raise NoAnswer(NO_CONNECTION, printable_line(message.decode(errors="replace"))) from error
        is_good = response.status_code == 200
        content = self._masked(content, is_good)
        if is_good:
            return content
        status = response.status_code
        detail = error_message(content) if not _is_page(response) else ""
        if "location" in response.headers:
            where = self._masked(response.headers["location"].encode(errors="replace"), False).decode(errors="replace")
            detail = f"it sends on to {printable_line(mask_secrets(where).partition('?')[0])}; give that address if it is right"
        raise NoAnswer(f"HTTP {status}", detail, status, retry_after_s(response.headers))

    async def close(self) -> None:
        await self._client.aclose()


async def _read_body(response: httpx.Response) -> bytes:
    """Read and unpack a response's body, at most MAX_REPLY bytes of it.

    Unpacking stops at that limit: a small packed body may unpack to gigabytes. Raises NoAnswer.
    """
    packed_as = response.headers.get("content-encoding", "identity").strip().lower()
    unpack = zlib.decompressobj(47) if packed_as in ("gzip", "x-gzip", "deflate") else None  # 47: with either's header
    if unpack is None and packed_as not in ("identity", ""):
        raise NoAnswer(
            "an answer in an encoding that was not asked for", printable_line(packed_as), response.status_code
        )
    content = bytearray()
    async for part in response.aiter_raw():
        try:
            content += unpack.decompress(part, MAX_REPLY + 1 - len(content)) if unpack else part
        except zlib.error as error:
            raise NoAnswer("a damaged answer", f"it is not {packed_as}", response.status_code) from error
        if len(content) > MAX_REPLY:
            raise NoAnswer("an answer without end", f"more than {MAX_REPLY} bytes")
    if unpack and not unpack.eof and content:
        raise NoAnswer("a damaged answer", f"its {packed_as} is cut off", response.status_code)
    return bytes(content)


def error_message(content: bytes) -> str:
    """Return a server's error message in one line.

    It is the message in the body's JSON, else the beginning of the body.
    """
    try:
        message = _message(json.loads(content))
    except (ValueError, RecursionError):
        message = ""
    return printable_line(message or content[:4000].decode(errors="replace"))


def _message(value: object, depth: int = 4) -> str:
    """Find the message in an error's JSON.

    Knows OpenAI's form and its variants, FastAPI's list of fields, and plain text.
    """
    if isinstance(value, str) or depth == 0:
        return value if isinstance(value, str) else ""
    if isinstance(value, list):
        return "; ".join(filter(None, (_message(part, depth - 1) for part in value[:3])))
    if not isinstance(value, dict):
        return ""
    keys = ("error", "message", "msg", "detail", "error_description", "errors", "reason")
    message = next(filter(None, (_message(value.get(key), depth - 1) for key in keys)), "")
    location = value.get("param") or value.get("loc")
    field = ".".join(map(str, location)) if isinstance(location, list) else location
    return f"{message} ({field})" if message and isinstance(field, str) and field not in message else message


def printable_line(text: str) -> str:
    """Return the printable characters of a text in one line, at most 300 of them."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:300]


def _is_page(response: httpx.Response) -> bool:
    return response.headers.get("content-type", "").startswith("text/html")


def _mask(token: str | None) -> Callable[[bytes, bool], bytes]:
    """Return a function that replaces the key in a response's body by ***.

    The function takes (body, whether it is a good answer). It finds the key in each form in which servers may write it. In a good
    answer a short key stays: "EMPTY" is no secret, and "yes" may be the verdict.
    """
    if not token:
        return lambda content, is_good: content
    forms = {token, quote(token, safe=""), token.replace("/", "\\/"), json.dumps(token)[1:-1]}
    forms |= {base64.b64encode(token.encode()).decode()}
    pattern = re.compile(b"|".join(re.escape(form.encode()) for form in sorted(forms, key=len, reverse=True)))
    escaped = re.compile(rb"(?<!\\)((?:\\\\)*)\\u00([2-7][0-9a-fA-F])")

    def plain(match: re.Match[bytes]) -> bytes:
        character = bytes.fromhex(match[2].decode())
        return match[0] if character in b'"\\\x7f' else match[1] + character

    def masked(content: bytes, is_good: bool) -> bytes:
        if is_good and len(token) < 8:
            return content
        return pattern.sub(b"***", escaped.sub(plain, content) if b"\\u00" in content else content)

    return masked


@cache
def _loop() -> asyncio.AbstractEventLoop:
    """Start the event loop that serves all clients, in a thread.

    Only an event loop can end a request in time when the server sends a byte now and then.
    """
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="http", daemon=True).start()
    return loop


_LOOP_LOCK = threading.Lock()


def _run_in_loop(work: Coroutine[Any, Any, _T]) -> _T:
    """Run the coroutine in the clients' loop and return its result."""
    with _LOOP_LOCK:
        loop = _loop()
    future = asyncio.run_coroutine_threadsafe(work, loop)
    try:
        return future.result()
    except BaseException:  # after an interrupt no request may go on in the background
        future.cancel()
        raise
