"""Requests a second of `thinkdraw serve lab-detector`, of two versions in turn, for many clients at once. Prints JSON lines.

    python bench/serve.py --server before=../before/.venv/bin/thinkdraw --server after=.venv/bin/thinkdraw --turns 3

Each client keeps one connection and asks about 8 rows of 64×64 pixels, again as soon as it is answered; the request is
written by hand, so that it is the same for every version. A refused client (429, 503) waits as long as it is told, or 1 s.
Clients run in this process, on the server's cores. server_cpu_ms, of a request, is what a busy machine changes least.
"""

import argparse
import base64
import http.client
import json
import os
import random
import re
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

ROWS, SIDE, TOKENS = 8, 64, 96


def request_body() -> bytes:
    rng = random.Random(0)
    is_image = [place >= TOKENS - 64 for place in range(TOKENS)]

    def row() -> dict[str, object]:
        picture = base64.b64encode(rng.randbytes(SIDE * SIDE) * 3).decode()
        return {
            "prompt": 0, "thought": "a red ring", "tokens": [5] * TOKENS, "segment": [int(i) for i in is_image],
            "is_image": is_image, "mask": [True] * TOKENS, "picture": {"raw": picture, "shape": [SIDE, SIDE, 3]},
        }  # fmt: skip

    ring = {
        "text": "a photo of a red ring",
        "tag": "colors",
        "include": [{"class": "ring", "count": 1, "color": "red"}],
    }
    message = {"api": 1, "id": "x", "group_size": 1, "sampling": {"thought": "inline", "max_thought_tokens": 64}}
    return json.dumps(message | {"prompts": [ring], "rows": [row() for _ in range(ROWS)]}).encode()


@contextmanager
def serving(command: str) -> Iterator[tuple[int, psutil.Process]]:
    """Port and process of a server that is up inside the block."""
    arguments = [command, "serve", "lab-detector", "--port", "0", "num_threads=1"]
    server = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert server.stdout
        found = re.search(r":(\d+)\s*$", server.stdout.readline())
        assert found, f"{command} serves nothing"
        yield int(found[1]), psutil.Process(server.pid)
    finally:
        server.terminate()
        server.wait(90)


def ask(port: int, server: psutil.Process, clients: int, seconds: float) -> dict[str, object]:
    """What `clients` threads met in so many seconds."""
    body, times, statuses = request_body(), [], Counter()
    begin = threading.Barrier(clients + 1)
    end = [0.0]

    def client() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        begin.wait()
        while (asked := time.perf_counter()) < end[0]:
            try:
                connection.request("POST", "/v1/judge", body, {"content-type": "application/json"})
                response = connection.getresponse()
                response.read()
            except (OSError, http.client.HTTPException) as error:
                statuses[type(error).__name__] += 1
                connection.close()
                continue
            statuses[response.status] += 1
            if response.status == 200:
                times.append(time.perf_counter() - asked)
            elif response.status in (429, 503):
                time.sleep(float(response.headers.get("retry-after", 1)))

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    began = time.perf_counter()
    end[0], cpu = began + seconds, sum(server.cpu_times()[:2])
    begin.wait()
    for thread in threads:
        thread.join()
    took, times = time.perf_counter() - began, sorted(times)
    return {
        "clients": clients, "requests_per_s": round(len(times) / took, 1),
        "server_cpu_ms": round(1000 * (sum(server.cpu_times()[:2]) - cpu) / max(1, len(times)), 1),
        "p50_s": round(times[len(times) // 2], 3), "p99_s": round(times[len(times) * 99 // 100], 3),
        "refused": sum(count for status, count in statuses.items() if status in (429, 503)),
        "lost": sum(count for status, count in statuses.items() if status not in (200, 429, 503)),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", action="append", required=True, help="NAME=the command `thinkdraw` of a version")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 63, 128])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--turns", type=int, default=3)
    given = parser.parse_args()
    for _ in range(given.turns):
        for clients in given.clients:
            for name, command in (server.split("=", 1) for server in given.server):
                with serving(command) as (port, server):
                    ask(port, server, 1, 0.5)
                    row = {"server": name} | ask(port, server, clients, given.seconds)
                print(json.dumps(row | {"load": round(os.getloadavg()[0], 1)}), flush=True)


if __name__ == "__main__":
    main()
