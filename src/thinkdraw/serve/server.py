"""A reward over HTTP, for the reward `http` of runs here and elsewhere.

    thinkdraw serve lab-clip port=8421

`GET /v1/about` says who judges, and `POST /v1/judge` judges; `serve/wire.py` has the messages. `GET /health` and `GET
/metrics` are for monitoring. There is one judge with one thread, and batches over all clients.
"""

import asyncio
import hmac
import os
import socket
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress

from pydantic import Field

import thinkdraw
from thinkdraw.config import StrictModel
from thinkdraw.errors import UserError
from thinkdraw.rewards.opening import RewardSettings, open_reward
from thinkdraw.rewards.revision import revision_of
from thinkdraw.runtime.device import set_threads
from thinkdraw.runtime.endpoints import is_loopback
from thinkdraw.serve.access import read_token
from thinkdraw.serve.queue import FullError, JudgeQueue, JudgingError
from thinkdraw.serve.warm_up import warm_up
from thinkdraw.serve.wire import (
    ABOUT,
    API,
    JUDGE,
    About,
    JudgeReply,
    Limits,
    Verdict,
    WireError,
    read_request,
    row_hashes,
)  # fmt: skip
from thinkdraw.types import Reward, Rollouts

try:
    import uvicorn
    from fastapi import Depends, FastAPI, Request, Response
    from fastapi.responses import PlainTextResponse

    from thinkdraw.serve.connections import uvicorn_config
    from thinkdraw.serve.intake import MemoryBudget, Refusal, declared_length, read_body
except ModuleNotFoundError as absent:
    raise UserError(
        f"serving needs the package {absent.name}, which is not installed. Run `pip install 'thinkdraw[serve]'`."
    ) from absent

_MIN_TOKEN_CHARACTERS = 16
_POLL_S = 0.5  # between checks whether the judge still works
_BODIES = 4  # requests of the greatest length that fit into memory at once
_READERS = min(4, os.cpu_count() or 1)  # threads that unpack requests
_MAX_MEMORY_WAIT_S = 30.0


class ServeConfig(StrictModel):
    """Settings of `thinkdraw serve`."""

    reward: RewardSettings = Field(
        default=RewardSettings(), description="The reward that is served: its name and what it is made with."
    )
    host: str = Field(
        default="127.0.0.1", description="Address to listen at; any but the machine's own loopback needs a token."
    )
    port: int = Field(default=8421, ge=0, le=65535, description="Port to listen at; 0 takes a free one and prints it.")
    token_env: str = Field(
        default="THINKDRAW_TOKEN", description="Environment variable that holds the token which clients must send."
    )
    max_batch: int = Field(
        default=64, ge=1, description="Rows that the judge gets at once; a group that is larger stays whole."
    )
    max_wait_s: float = Field(
        default=0.005,
        ge=0,
        description="Seconds that a batch which is not full waits for more rows. Longer makes larger batches and "
        "slower answers.",
    )
    max_waiting: int = Field(
        default=2048,
        ge=1,
        description="Most rows that may wait for the judge; further requests are refused with 429 and tried "
        "again by clients.",
    )
    max_waiting_bytes: int = Field(
        default=2_000_000_000,
        ge=1,
        description="Most bytes of pictures that may wait for the judge; further requests are refused with 429.",
    )
    limits: Limits = Field(default=Limits(), description="Most that one request may hold.")
    max_connections: int = Field(
        default=512,
        ge=1,
        description="Most connections at a time. A new one takes the place of the longest idle one; requests beyond it get 503.",
    )
    silent_s: float = Field(
        default=10.0,
        gt=0,
        description="Seconds that a client may be silent in the middle of a request or an answer before its "
        "connection is dropped.",
    )
    hung_s: float = Field(
        default=120.0,
        gt=0,
        description="Seconds after which a batch counts as hung: /health and all requests then get 503, so that "
        "the server is restarted.",
    )
    shutdown_s: int = Field(
        default=60, ge=1, description="Seconds that the server, told to stop, still takes for answers that are due."
    )
    num_threads: int | None = Field(
        default=None, ge=1, description="CPU threads that torch uses; null follows OMP_NUM_THREADS."
    )


class Service:
    """One reward, its queue and its counts; `about` is what a client is told."""

    def __init__(self, reward: Reward, config: ServeConfig):
        self.reward, self.config = reward, config
        self.revision = revision_of(reward, config.reward.settings)
        self.queue = JudgeQueue(
            reward, config.max_batch, config.max_wait_s, config.max_waiting, max_bytes=config.max_waiting_bytes,
            limits=config.limits, hung_s=config.hung_s,
        )  # fmt: skip
        self.components: list[str] | None = None
        self.requests: Counter[int] = Counter()
        self._under_way = 0
        self._memory = MemoryBudget(_BODIES * config.limits.bytes, _MAX_MEMORY_WAIT_S)
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="reader")

    @property
    def about(self) -> About:
        weights = None if self.reward.weights is None else dict(self.reward.weights)
        return About(
            api=API, version=thinkdraw.__version__, reward=self.reward.name, revision=self.revision,
            components=self.components, weights=weights, limits=self.config.limits,
        )  # fmt: skip

    async def judge(self, request: Request) -> JudgeReply:
        """Judge a request. Raises Refusal; UserError where the reward cannot judge it."""
        if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            # A browser lets no page of another site send this type unasked, so a visited page cannot use the server.
            raise Refusal(415, "Send application/json.")
        if self._under_way >= self.config.max_connections:
            raise Refusal(503, f"The server is busy with {self._under_way} requests. Ask again later.")
        self._under_way += 1
        try:
            request_id, futures = await self._submit(request)
            verdicts = await collect_verdicts(request, futures, self.queue)
        except WireError as error:
            raise Refusal(400, str(error)) from error
        except FullError as error:
            raise Refusal(429 if self.queue.is_open else 503, f"{error}. Ask again later.") from error
        except JudgingError as error:
            raise Refusal(500, f"The request was not judged ({error}). Ask again later.") from error
        finally:
            self._under_way -= 1
        self.components = list(verdicts[0].components)
        return JudgeReply(api=1, id=request_id, reward=self.reward.name, revision=self.revision, rows=verdicts)

    async def _submit(self, request: Request) -> tuple[str, list[Future[list[Verdict]]]]:
        """Read a request and queue it: (its id, futures of its verdicts).

        The body is in memory only in here.
        """
        limit = self.config.limits.bytes
        length = declared_length(request, limit)
        if trouble := self.queue.trouble:
            raise FullError(trouble)
        async with self._memory.hold(length):
            body = await read_body(request, limit, self.config.silent_s)
            reading = asyncio.get_running_loop().run_in_executor(self._readers, self._read, body)
            request_id, rollouts, hashes = await reading
            return request_id, self.queue.submit(rollouts, hashes)

    def close(self) -> None:
        """Take no more requests; return when those that wait are judged, or time is up."""
        self.queue.close(self.config.shutdown_s)
        self._readers.shutdown(wait=False, cancel_futures=True)

    def metrics(self) -> str:
        """Write the counts in Prometheus's text format."""
        counts, judged = self.queue.counts, {"reward": self.reward.name, "revision": self.revision}
        lines = [f"thinkdraw_served{{{','.join(f'{k}={_quote(v)}' for k, v in judged.items())}}} 1"]
        lines += [f'thinkdraw_requests_total{{code="{code}"}} {n}' for code, n in sorted(self.requests.items())]
        totals = ("batches", "rows", "no_verdict_rows", "failed_requests")
        lines += [f"thinkdraw_{name}_total {counts[name]}" for name in totals]
        lines.append(f"thinkdraw_healthy {int(self.queue.is_open)}")
        lines.append(f"thinkdraw_judging_seconds {self.queue.judging_s:.3f}")
        lines.append(f"thinkdraw_judge_seconds_total {self.queue.judge_seconds:.6f}")
        lines.append(f"thinkdraw_waiting_rows {self.queue.num_rows}")
        return "\n".join(lines) + "\n"

    def _read(self, body: bytes) -> tuple[str, Rollouts, list[str]]:
        request_id, rollouts = read_request(body, self.config.limits)
        return request_id, rollouts, row_hashes(rollouts)


def build_app(service: Service, token: str = "") -> FastAPI:
    """Build the application. token: what a client must send; "" lets everybody in."""

    @asynccontextmanager
    async def close_when_judged(app: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(service.close)

    def check_token(request: Request) -> None:
        header = request.headers.get("authorization", "").encode()
        # compare_digest takes equally long for every wrong token: its time tells nothing about the right one.
        if token and not hmac.compare_digest(header, f"Bearer {token}".encode()):
            raise Refusal(401, f"The token is missing or wrong. Set {service.config.token_env} as on the server.")

    app = FastAPI(title="thinkdraw", docs_url=None, redoc_url=None, openapi_url=None, lifespan=close_when_judged)

    @app.get("/health")
    async def health() -> Response:
        trouble = service.queue.trouble
        return PlainTextResponse(f"{trouble or 'ok'}\n", 503 if trouble else 200)

    @app.get("/metrics", dependencies=[Depends(check_token)])
    async def metrics() -> Response:
        return PlainTextResponse(service.metrics(), media_type="text/plain; version=0.0.4")

    @app.get(ABOUT, dependencies=[Depends(check_token)])
    async def about() -> Response:
        return Response(service.about.model_dump_json(), media_type="application/json")

    @app.post(JUDGE, dependencies=[Depends(check_token)])
    async def judge(request: Request) -> Response:
        reply = await service.judge(request)
        service.requests[200] += 1
        return Response(reply.model_dump_json(), media_type="application/json")

    def refusal_response(status: int, message: str) -> Response:
        service.requests[status] += 1
        headers = {"retry-after": "1"} if status in (429, 503) else {}
        if status in (408, 413, 503):  # the rest of the body is not read
            headers["connection"] = "close"
        return PlainTextResponse(message + "\n", status, headers)

    @app.exception_handler(Refusal)
    async def on_refusal(request: Request, refusal: Refusal) -> Response:
        return refusal_response(refusal.status, str(refusal))

    @app.exception_handler(UserError)
    async def on_user_error(request: Request, error: UserError) -> Response:
        return refusal_response(422, str(error))

    @app.exception_handler(Exception)
    async def on_error(request: Request, error: Exception) -> Response:
        return refusal_response(500, f"The server failed: {type(error).__name__}: {' '.join(str(error).split())[:200]}")

    return app


async def collect_verdicts(
    request: Request, futures: Sequence[Future[list[Verdict]]], queue: JudgeQueue
) -> list[Verdict]:
    """Wait for the futures; return their verdicts in order.

    Where the client has gone, its rows that still wait are dropped. Raises what the futures raise, and FullError where
    the judge has hung or ended.
    """
    waiting = [asyncio.wrap_future(future) for future in futures]
    # After the body, the next message of a request is that its client has gone.
    pending, client_gone = set(waiting), asyncio.ensure_future(request.receive())
    try:
        while pending:
            await asyncio.wait({*pending, client_gone}, timeout=_POLL_S, return_when=asyncio.FIRST_COMPLETED)
            pending = {future for future in pending if not future.done()}
            if pending and client_gone.done():
                raise Refusal(499, "The client has gone.")
            if pending and queue.is_stuck:
                raise FullError(queue.trouble)
    finally:
        for future in {*pending, client_gone}:
            future.cancel()
    return [verdict for done in waiting for verdict in done.result()]


def run(config: ServeConfig) -> None:
    """Serve until told to stop, then give the answers that are due. Raises UserError."""
    token = require_token(config)
    set_threads(config.num_threads)
    server_socket = bind_socket(config)
    reward = open_reward(config.reward.name, **config.reward.settings)
    service = Service(reward, config)
    service.components = warm_up(reward)
    app = build_app(service, token)
    settings = uvicorn_config(app, config.max_connections, config.silent_s, config.shutdown_s)
    server_socket.listen()
    host, port = server_socket.getsockname()[:2]
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    print(f"serving {reward.name}, revision {service.revision}, at http://{address}", flush=True)
    with suppress(KeyboardInterrupt):
        uvicorn.Server(settings).run(sockets=[server_socket])


def require_token(config: ServeConfig) -> str:
    """Read the token and check that it protects the server enough.

    Raises UserError where other machines could reach the server without a token, or with one that is soon guessed.
    """
    token = read_token(config.token_env)
    if not token and not is_loopback(config.host):
        raise UserError(
            f"host={config.host} is open to other machines, which needs a token. Set {config.token_env}, or use "
            "host=127.0.0.1."
        )
    if token and len(token) < _MIN_TOKEN_CHARACTERS:
        raise UserError(
            f"the token in {config.token_env} has {len(token)} characters. Use {_MIN_TOKEN_CHARACTERS} or more."
        )
    return token


def bind_socket(config: ServeConfig) -> socket.socket:
    """Take the port before the judge is loaded, which may need minutes.

    Raises UserError where the port is not free.
    """
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    # asyncio sets TCP_NODELAY (answers are sent at once) only on sockets of this protocol number.
    server_socket = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        server_socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server_socket.bind((config.host, config.port))
    except OSError as error:
        server_socket.close()
        raise UserError(
            f"cannot listen at {config.host} port {config.port}: {error.strerror or error}. Choose another port= or host=."
        ) from error
    return server_socket


def _quote(value: str) -> str:
    return '"' + value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n") + '"'
