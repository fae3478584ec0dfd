"""A real `transformers serve` on loopback, in a process of its own."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

COMMAND = Path(sys.executable).with_name("transformers")
START_S = 240  # a busy machine imports slowly


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The base_url at which the model in `folder` is served; skips the test, with the reason, where it cannot be."""
    if not COMMAND.exists():
        pytest.skip(f"{COMMAND} is absent")
    port, log = free_port(), folder.with_suffix(".log")
    options = ["--device", "cpu", "--dtype", "float32", "--host", "127.0.0.1", "--port", str(port)]
    with log.open("w") as output:
        server = subprocess.Popen(
            [COMMAND, "serve", folder, *options],
            stdout=output,
            stderr=output,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    try:
        deadline = time.monotonic() + START_S
        while not is_up(port):
            if server.poll() is not None or time.monotonic() > deadline:
                pytest.skip(f"transformers serve does not start: {log.read_text()[-500:]}")
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        server.wait(30)


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def is_up(port: int) -> bool:
    try:
        return urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).status == 200
    except OSError:
        return False
