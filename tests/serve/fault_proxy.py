"""A proxy between a reward's client and its server that does to answers what networks and servers do to them."""

import json
import random
import socket
import struct
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FAULTS = ("error", "reset", "stall", "truncated", "cut", "nan", "short", "long", "swapped", "other", "busy")


class FaultProxy:
    """Passes requests on to `target`. plan: number of a POST, from 0 → a fault, or "" for none.

    gone: no connection is answered. seen: the faults of the POSTs so far.
    """

    def __init__(self, target: str, plan: Callable[[int], str] = lambda number: "", stall_s: float = 0.6) -> None:
        self.target, self.plan, self.stall_s, self.gone = target, plan, stall_s, False
        self.seen: list[str] = []
        self._lock = threading.Lock()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                proxy._pass(self, None, "")

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                with proxy._lock:
                    fault = proxy.plan(len(proxy.seen))
                    proxy.seen.append(fault)
                proxy._pass(self, body, fault)

            def log_message(self, format: str, *args: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def _pass(self, handler: BaseHTTPRequestHandler, body: bytes | None, fault: str) -> None:
        if self.gone or fault == "reset":
            return _reset(handler)
        if fault == "stall":
            time.sleep(self.stall_s)
            return _reset(handler)
        if fault == "error":
            return _send(handler, 500, b"upstream exploded", {"content-type": "text/plain"})
        if fault == "busy":
            return _send(handler, 429, b"later", {"content-type": "text/plain", "retry-after": "0"})
        names = ("authorization", "content-type")
        headers = {name: handler.headers[name] for name in names if handler.headers[name]}
        try:
            with urllib.request.urlopen(urllib.request.Request(self.target + handler.path, body, headers)) as reply:
                status, content, kind = reply.status, reply.read(), reply.headers["content-type"]
        except urllib.error.HTTPError as error:
            status, content, kind = error.code, error.read(), error.headers["content-type"]
        except OSError:
            return _reset(handler)
        content = spoilt(content, fault)
        if fault == "cut":  # the connection ends before what the header promises
            _send(
                handler,
                status,
                content[: len(content) // 2],
                {"content-type": kind, "content-length": str(len(content))},
            )
            return _reset(handler)
        _send(handler, status, content, {"content-type": kind})


def spoilt(content: bytes, fault: str) -> bytes:
    """The body of an answer, damaged so that it is still HTTP."""
    if fault == "truncated":
        return content[: len(content) // 2]
    if fault not in ("nan", "short", "long", "swapped", "other"):
        return content
    reply = json.loads(content)
    rows = reply["rows"]
    if fault == "nan":
        rows[0]["reward"] = float("nan")  # json writes it as NaN, which JSON does not have
    elif fault == "short":
        rows.pop()
    elif fault == "long":
        rows.append(rows[0])
    elif fault == "swapped":
        rows.reverse()
    elif fault == "other":
        reply["id"] = "of another request"
    return json.dumps(reply).encode()


def at_random(seed: int, share: float, faults: tuple[str, ...]) -> Callable[[int], str]:
    """A plan: one of the faults with probability `share`, in an order that depends on the seed alone."""
    rng = random.Random(seed)
    drawn = [rng.choice(faults) if rng.random() < share else "" for _ in range(10_000)]
    return drawn.__getitem__


@contextmanager
def between(target: str, plan: Callable[[int], str] = lambda number: "", stall_s: float = 0.6) -> Iterator[FaultProxy]:
    proxy = FaultProxy(target, plan, stall_s)
    thread = threading.Thread(target=proxy.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.server.shutdown()
        proxy.server.server_close()
        thread.join()


def _send(handler: BaseHTTPRequestHandler, status: int, content: bytes, headers: dict[str, str]) -> None:
    handler.send_response(status)
    for name, value in ({"content-length": str(len(content))} | headers).items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(content)


def _reset(handler: BaseHTTPRequestHandler) -> None:
    """Close without a word: a lingering time of 0 makes it a TCP reset."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.close_connection = True
    handler.connection.close()
