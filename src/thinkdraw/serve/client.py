"""Asking a judge over HTTP with patience: time limits, another try after a pause, and no asking while nobody answers."""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from thinkdraw.errors import UserError
from thinkdraw.runtime.endpoints import retry_after_s
from thinkdraw.serve.access import is_loopback
from thinkdraw.serve.wire import (
    ABOUT,
    API,
    JUDGE,
    About,
    PictureForm,
    Verdict,
    WireError,
    parse,
    read_reply,
    write_request,
)  # fmt: skip
from thinkdraw.types import Rollouts

try:
    import httpx
except ModuleNotFoundError as absent:
    raise UserError(
        "the reward http needs the package httpx, which is not installed. Run `pip install 'thinkdraw[remote]'`."
    ) from absent

_T = TypeVar("_T")
_FINAL = (401, 403, 413, 422)  # asking again would not help: the token, a limit, or rollouts that cannot be judged
_PROBES = 3
_MAX_REPLY = 64_000_000  # bytes
_MAX_PAUSE_S = 20.0


class Unanswered(Exception):
    """No usable answer came; the message says why, in one line."""

    def __init__(self, reason: str, retry_after_s: float = 0.0):
        super().__init__(reason)
        self.retry_after_s = retry_after_s


@dataclass(frozen=True)
class Patience:
    """timeout_s: for a whole answer. retries: more tries of a request, after pauses of about backoff_s · 2^n.

    break_after: requests in a row that failed with all their retries, after which nothing is asked for break_s.
    """

    timeout_s: float
    retries: int
    backoff_s: float
    break_after: int
    break_s: float

    def pause_s(self, tries: int) -> float:
        """Between half and all of the doubled pause, so that many clients do not come back at once."""
        return min(_MAX_PAUSE_S, self.backoff_s * 2**tries) * random.uniform(0.5, 1.0)


class Breaker:
    """Closed while answers come; open for break_s after `break_after` failures in a row, and then after each one more."""

    def __init__(self, patience: Patience):
        self._patience, self._lock = patience, threading.Lock()
        self._failures, self._open_until = 0, 0.0

    @property
    def is_open(self) -> bool:
        with self._lock:
            return time.monotonic() < self._open_until

    def heard(self, answered: bool) -> None:
        with self._lock:
            self._failures = 0 if answered else self._failures + 1
            if self._failures >= self._patience.break_after:
                self._open_until = time.monotonic() + self._patience.break_s


class RemoteJudge:
    """The server at `url`; `about` is what it said of itself at construction. Used by several threads.

    Raises UserError at construction where it cannot be reached, refuses the token or is of another API version.
    """

    def __init__(self, url: str, token: str, patience: Patience, max_concurrency: int, pictures: PictureForm):
        self.url, self.patience = url.rstrip("/"), patience
        self.pictures: PictureForm = pictures
        self.breaker = Breaker(patience)
        parts = _parsed(self.url)
        self._client = httpx.Client(
            headers={"authorization": f"Bearer {token}"} if token else {},
            timeout=patience.timeout_s,
            limits=httpx.Limits(max_connections=max_concurrency, max_keepalive_connections=max_concurrency),
            trust_env=not is_loopback(parts.host),  # a proxy for the internet cannot see this machine
        )
        self.about = self._introduced()

    def ask(self, rollouts: Rollouts, hashes: list[str]) -> list[Verdict]:
        """Verdicts on whole groups, on the CPU. Raises Unanswered, and UserError where another try cannot help."""
        if self.breaker.is_open:
            raise Unanswered(f"{self.url} was not asked: it has not answered lately")
        request_id = uuid.uuid4().hex
        body = write_request(rollouts, request_id, self.pictures)

        def attempt() -> list[Verdict]:
            return read_reply(self._fetch("POST", JUDGE, body), request_id, hashes, self.about.revision)

        try:
            verdicts = self._patiently(attempt, 1 + self.patience.retries)
        except Unanswered:
            self.breaker.heard(False)
            raise
        self.breaker.heard(True)
        return verdicts

    def close(self) -> None:
        self._client.close()

    def _introduced(self) -> About:
        try:
            about = self._patiently(lambda: parse(About, self._fetch("GET", ABOUT)), _PROBES)
        except Unanswered as error:
            raise UserError(
                f"no reward is served at {self.url} ({error}). Start `thinkdraw serve REWARD` there, or correct url."
            ) from error
        if about.api != API:
            raise UserError(
                f"{self.url} speaks version {about.api} of the interface (thinkdraw {about.version}), this is version "
                f"{API}. Install the same thinkdraw on both sides."
            )
        return about

    def _patiently(self, attempt: Callable[[], _T], tries: int) -> _T:
        for number in range(tries):
            try:
                return attempt()
            except (Unanswered, WireError) as error:
                if number + 1 == tries:
                    raise Unanswered(str(error)) from error
                time.sleep(max(self.patience.pause_s(number), getattr(error, "retry_after_s", 0.0)))
        raise AssertionError("tries is at least 1")

    def _fetch(self, method: str, path: str, body: bytes | None = None) -> bytes:
        """The body of a good response, whole and in time."""
        deadline, content = time.monotonic() + self.patience.timeout_s, bytearray()
        headers = {"content-type": "application/json"} if body else {}
        try:
            with self._client.stream(method, self.url + path, content=body, headers=headers) as response:
                for part in response.iter_bytes():
                    content += part
                    if time.monotonic() > deadline or len(content) > _MAX_REPLY:
                        raise Unanswered(f"{self.url} sends without end")
        except httpx.HTTPError as error:
            said = " ".join(str(error).split()) or "nothing came"
            raise Unanswered(f"{type(error).__name__} at {self.url}: {said}") from error
        if response.status_code == 200:
            return bytes(content)
        said = " ".join(content[:300].decode(errors="replace").split()) if _is_text(response) else ""
        if response.status_code in _FINAL:
            raise UserError(said or f"{self.url} refused with HTTP {response.status_code}.")
        wait_s = min(retry_after_s(response.headers) or 0.0, _MAX_PAUSE_S)
        raise Unanswered(f"HTTP {response.status_code} from {self.url} {said}".rstrip(), wait_s)


def _parsed(url: str) -> httpx.URL:
    try:
        parts = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise UserError(f"url={url!r}: {error}. Give it as http://HOST:PORT.") from error
    if parts.scheme not in ("http", "https") or not parts.host:
        raise UserError(f"url={url!r} is no address of a server. Give it as http://HOST:PORT.")
    return parts


def _is_text(response: httpx.Response) -> bool:
    return response.headers.get("content-type", "").startswith("text/plain")
