"""One client for all servers: it tries again, waits as it is told, keeps quiet towards who is gone, and repeats no key."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from thinkdraw.runtime import http
from thinkdraw.runtime.http import AsyncHttpClient, Breaker, HttpClient, NoAnswer, Patience

QUICK = Patience(timeout_s=10, retries=2, backoff_s=0.0)
Reply = tuple[int, bytes, dict[str, str]]


@contextmanager
def server(reply: Callable[[int], Reply]) -> Iterator[tuple[str, list[tuple[str, bytes, str]]]]:
    """(url, requests so far: method, body, authorization) of one that answers its n-th request so."""
    requests: list[tuple[str, bytes, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            requests.append((self.command, body, self.headers.get("authorization", "")))
            status, content, headers = reply(len(requests) - 1)
            self.send_response(status)
            for name, value in {"content-length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST

        def log_message(self, format: str, *args: object) -> None: ...

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=listening.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{listening.server_port}", requests
    listening.shutdown()
    listening.server_close()


def test_a_request_is_made_once_and_sent_until_it_is_answered_or_its_tries_are_used_up():
    made = []
    with server(lambda n: (200 if n == 2 else 500, b"yes", {})) as (url, requests):
        client = HttpClient(url, "a key", QUICK)
        assert client.ask("/x", bytes.decode, lambda: made.append(1) or b"{}") == "yes"
        assert requests == [("POST", b"{}", "Bearer a key")] * 3 and made == [1]
    with server(lambda n: (500, b"no", {})) as (url, requests):
        with pytest.raises(NoAnswer, match="HTTP 500: no"):
            HttpClient(url, None, QUICK).ask("/x", bytes.decode)
        assert requests == [("GET", b"", "")] * 3


def test_what_read_cannot_use_is_asked_for_again_and_a_request_at_fault_is_not():
    def read(body: bytes) -> str:
        if body != b"good":
            raise NoAnswer("unreadable", status=200)
        return "good"

    with server(lambda n: (200, b"good" if n else b"bad", {})) as (url, requests):
        assert HttpClient(url, None, QUICK).ask("/x", read) == "good" and len(requests) == 2
    with server(lambda n: (422, b"no such thing", {})) as (url, requests):
        with pytest.raises(NoAnswer, match="HTTP 422") as caught:
            HttpClient(url, None, QUICK).ask("/x", read)
        assert (caught.value.reason, caught.value.detail, len(requests)) == ("HTTP 422", "no such thing", 1)


def test_the_pause_is_at_least_what_the_server_asks_and_bounded(monkeypatch):
    pauses: list[float] = []
    monkeypatch.setattr(http.time, "sleep", pauses.append)
    with server(lambda n: (429, b"", {"retry-after": ("7", "500")[n] if n < 2 else "soon"})) as (url, _):
        with pytest.raises(NoAnswer):
            HttpClient(url, None, Patience(timeout_s=10, retries=2, backoff_s=0.5)).ask("/x", bytes.decode)
    assert [pause for pause in pauses if pause > 0.5] == [7.0, 60.0]


@pytest.mark.parametrize("content", [b"you sent sk-secret", b"x" * 290 + b"sk-secret"])
def test_a_key_is_not_repeated_nor_a_web_page_quoted(content):
    with server(lambda n: (401, content, {})) as (url, _), pytest.raises(NoAnswer) as caught:
        HttpClient(url, "sk-secret", QUICK).send("/x")
    assert "sk-s" not in str(caught.value)
    with server(lambda n: (404, b"<html>", {"content-type": "text/html"})) as (url, _):
        with pytest.raises(NoAnswer, match=r"^HTTP 404$"):
            HttpClient(url, None, QUICK).send("/x")


def test_an_answer_without_end_is_none(monkeypatch):
    monkeypatch.setattr(http, "MAX_REPLY", 1000)
    with server(lambda n: (200, b"x" * 1001, {})) as (url, _), pytest.raises(NoAnswer, match="without end"):
        HttpClient(url, None, QUICK).send("/x")


def test_nobody_there_and_no_byte_in_time_are_told_apart():
    with pytest.raises(NoAnswer) as caught:
        HttpClient("http://127.0.0.1:9", None, QUICK).send("/x")
    assert (caught.value.reason, caught.value.status) == ("no connection", None)
    silence = threading.Event()
    with server(lambda n: (200, b"", {}) if silence.wait(20) else (500, b"", {})) as (url, _):
        with pytest.raises(NoAnswer) as caught:
            HttpClient(url, None, Patience(timeout_s=0.1)).send("/x")
        silence.set()
    assert caught.value.reason == "timeout"


def test_a_server_that_is_gone_is_left_alone_for_a_while():
    client = HttpClient("http://127.0.0.1:9", None, Patience(10, retries=0, break_after=2, break_s=60))
    for _ in range(2):
        with pytest.raises(NoAnswer, match="no connection"):
            client.ask("/x", bytes.decode)
    with pytest.raises(NoAnswer, match="was not asked"):
        client.ask("/x", bytes.decode)


def test_the_loops_client_says_the_same():
    async def both(url: str) -> tuple[bytes, str]:
        client = AsyncHttpClient(url, "sk-secret", QUICK)
        good = await client.send("/x", b"{}")
        with pytest.raises(NoAnswer) as caught:
            await client.send("/x")
        await client.close()
        return good, str(caught.value)

    with server(lambda n: (503, b"sk-secret", {}) if n else (200, b"yes", {})) as (url, requests):
        assert asyncio.run(both(url)) == (b"yes", "HTTP 503: ***")
        assert [method for method, *_ in requests] == ["POST", "GET"]


def test_the_breaker_opens_after_failures_in_a_row_and_one_answer_closes_it():
    breaker = Breaker(Patience(timeout_s=1, retries=0, backoff_s=0, break_after=3, break_s=60))
    for answered in (False, False, True, False, False):
        breaker.count(answered)
    assert not breaker.is_open
    breaker.count(False)
    assert breaker.is_open
    breaker.count(True)
    breaker.count(False)
    breaker.count(False)
    assert breaker.is_open  # the time that it was opened for is not over


def test_pauses_double_within_half_to_all_and_end_at_a_bound():
    patience = Patience(timeout_s=1, retries=9, backoff_s=0.5, max_pause_s=20)
    for tries, whole in ((0, 0.5), (1, 1.0), (3, 4.0), (9, 20.0)):
        pauses = [patience.pause_s(tries) for _ in range(50)]
        assert whole / 2 <= min(pauses) < max(pauses) <= whole
