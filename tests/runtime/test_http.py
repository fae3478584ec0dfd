"""One client for all servers: it tries again, waits as it is told, keeps quiet towards who is gone, and hands on no key."""

import asyncio
import base64
import gzip
import socket
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from thinkdraw.runtime import http
from thinkdraw.runtime.http import AsyncHttpClient, CircuitBreaker, HttpClient, NoAnswer, RetryPolicy

QUICK = RetryPolicy(timeout_s=10, retries=2, backoff_s=0.0)
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
            HttpClient(url, None, RetryPolicy(timeout_s=10, retries=2, backoff_s=0.5)).ask("/x", bytes.decode)
    assert [pause for pause in pauses if pause > 0.5] == [7.0, 60.0]


@pytest.mark.parametrize("content", [b"you sent sk-secret", b"x" * 290 + b"sk-secret"])
def test_a_key_is_not_repeated_nor_a_web_page_quoted(content):
    with server(lambda n: (401, content, {})) as (url, _), pytest.raises(NoAnswer) as caught:
        HttpClient(url, "sk-secret", QUICK).send("/x")
    assert "sk-s" not in str(caught.value)
    with server(lambda n: (404, b"<html>", {"content-type": "text/html"})) as (url, _):
        with pytest.raises(NoAnswer, match=r"^HTTP 404$"):
            HttpClient(url, None, QUICK).send("/x")


KEY = "sk/secret+1234=="


@pytest.mark.parametrize(
    "echo",
    [
        KEY, KEY.replace("/", "\\/"), KEY.replace("=", "\\u003d"), "".join(f"\\u{ord(c):04x}" for c in KEY),
        "sk%2Fsecret%2B1234%3D%3D", base64.b64encode(KEY.encode()).decode(),
    ],
)  # fmt: skip
def test_a_key_is_masked_in_good_answers_too_however_it_is_written(echo):
    with server(lambda n: (200, f'{{"said": "your key is {echo}", "more": 1}}'.encode(), {})) as (url, _):
        assert HttpClient(url, KEY, QUICK).send("/x") == b'{"said": "your key is ***", "more": 1}'


def test_a_short_key_that_is_no_secret_spoils_no_answer():
    with server(lambda n: (200, b'{"verdict": "yes"}', {})) as (url, _):
        assert HttpClient(url, "yes", QUICK).send("/x") == b'{"verdict": "yes"}'


def test_nobody_is_followed_elsewhere_and_no_key_goes_there():
    with server(lambda n: (200, b"yes", {})) as (other, asked):
        headers = {"location": other.replace("//", "//me:password@") + "/v1?key=sk-secret"}
        for status in (301, 302, 303, 307, 308):
            with server(partial(lambda status, n: (status, b"", headers), status)) as (url, requests):
                with pytest.raises(NoAnswer, match=rf"^HTTP {status}: it sends on to http://\*\*\*@127") as caught:
                    HttpClient(url, "sk-secret", QUICK).ask("/x", bytes.decode)
                assert "secret" not in str(caught.value) and "password" not in str(caught.value) and len(requests) == 1
        assert asked == []


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"error": {"message": "no\\n such \\u001b[31m model", "type": "x"}}', "no such [31m model"),
        (b'{"error": "no such model"}', "no such model"),
        (b'{"detail": "no such model"}', "no such model"),
        (b'{"detail": [{"loc": ["body", "seed"], "msg": "not permitted"}, {"loc": ["body", "x"], "msg": "nor this"}]}',
         "not permitted (body.seed); nor this (body.x)"),
        (b'{"error": {"message": "Unsupported value", "param": "temperature"}}', "Unsupported value (temperature)"),
        (b'{"errors": [{"message": "no"}]}', "no"),
        (b'{"code": 7}', '{"code": 7}'),
        (b"plain words", "plain words"),
        (b"[" * 5000, "[" * 300),
        (b"\xff\xfe", "\ufffd\ufffd"),
    ],
)  # fmt: skip
def test_an_error_is_told_in_the_servers_own_words(content, words):
    with server(lambda n: (400, content, {})) as (url, _), pytest.raises(NoAnswer) as caught:
        HttpClient(url, None, QUICK).send("/x")
    assert caught.value.detail == words


# What an answer may be


def test_an_answer_is_not_asked_for_packed_and_taken_so_if_it_comes():
    for pack, name in ((gzip.compress, "gzip"), (zlib.compress, "deflate")):
        with server(partial(lambda pack, name, n: (200, pack(b"yes"), {"content-encoding": name}), pack, name)) as (
            url,
            _,
        ):
            assert HttpClient(url, None, QUICK).send("/x") == b"yes"


def test_what_would_unpack_to_more_is_not_unpacked(monkeypatch):
    monkeypatch.setattr(http, "MAX_REPLY", 1000)
    sizes: list[int] = []
    unpacked = http._read_body

    async def counted(response):
        content = await unpacked(response)
        sizes.append(len(content))
        return content

    monkeypatch.setattr(http, "_read_body", counted)
    bomb = gzip.compress(b" " * 5_000_000)
    for client in (HttpClient, None):
        with server(lambda n: (200, bomb, {"content-encoding": "gzip"})) as (url, _):
            with pytest.raises(NoAnswer, match="an answer without end: more than 1000 bytes"):
                if client:
                    client(url, None, QUICK).send("/x")
                else:
                    asyncio.run(AsyncHttpClient(url, None, QUICK).send("/x"))
    assert sizes == []


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("br", b"\x0b\x02\x80yes\x03", "an encoding that was not asked for: br"),
        ("gzip, gzip", b"", "an encoding that was not asked for"),
        ("gzip", b"yes", "a damaged answer: it is not gzip"),
        ("gzip", gzip.compress(b"yes")[:-4], "a damaged answer: its gzip is cut off"),
    ],
)
def test_a_packing_that_cannot_be_bounded_or_read_is_no_answer(name, content, reason):
    with server(lambda n: (200, content, {"content-encoding": name})) as (url, _):
        with pytest.raises(NoAnswer, match=reason):
            HttpClient(url, None, QUICK).send("/x")


@contextmanager
def dripping(beginning: bytes) -> Iterator[str]:
    """The url of a server that sends the beginning, and then a byte every 20 ms without end."""
    listening, done = socket.create_server(("127.0.0.1", 0)), threading.Event()

    def drip() -> None:
        with listening.accept()[0] as line:
            line.recv(1000)
            line.sendall(beginning)
            while not done.wait(0.02):
                try:
                    line.sendall(b" ")
                except OSError:
                    return

    thread = threading.Thread(target=drip, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    done.set()
    thread.join()
    listening.close()


@pytest.mark.parametrize(
    "beginning", [b"HTTP/1.1 200 OK\r\nx-slow: ", b"HTTP/1.1 200 OK\r\ncontent-length: 10000\r\n\r\n", b"HTTP/1.1 100 "]
)
def test_the_time_holds_for_the_whole_answer_however_it_drips(beginning):
    with dripping(beginning) as url, pytest.raises(NoAnswer, match=r"timeout: no whole answer in 0\.2 s"):
        HttpClient(url, None, RetryPolicy(timeout_s=0.2)).send("/x")


@pytest.mark.parametrize("beginning", [b"SSH-2.0-OpenSSH_9.6\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: -3\r\n\r\n"])
def test_what_is_not_http_is_no_connection(beginning):
    with dripping(beginning) as url, pytest.raises(NoAnswer, match=r"no connection|timeout"):
        HttpClient(url, None, RetryPolicy(timeout_s=0.5)).send("/x")


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
            HttpClient(url, None, RetryPolicy(timeout_s=0.1)).send("/x")
        silence.set()
    assert caught.value.reason == "timeout"


def test_a_server_that_is_gone_is_left_alone_for_a_while():
    client = HttpClient("http://127.0.0.1:9", None, RetryPolicy(10, retries=0, break_after=2, break_s=60))
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
    breaker = CircuitBreaker(RetryPolicy(timeout_s=1, retries=0, backoff_s=0, break_after=3, break_s=60))
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
    retry_policy = RetryPolicy(timeout_s=1, retries=9, backoff_s=0.5, max_pause_s=20)
    for tries, whole in ((0, 0.5), (1, 1.0), (3, 4.0), (9, 20.0)):
        pauses = [retry_policy.pause_s(tries) for _ in range(50)]
        assert whole / 2 <= min(pauses) < max(pauses) <= whole
