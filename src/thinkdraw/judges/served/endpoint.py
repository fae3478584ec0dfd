"""Chat requests to an OpenAI-compatible server: many at once, tried again where that may help, never mixed up."""

import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from pydantic import BaseModel, Field, ValidationError

from thinkdraw.errors import UserError
from thinkdraw.runtime.endpoints import checked_url
from thinkdraw.runtime.http import HttpClient, NoAnswer, Patience
from thinkdraw.runtime.json_types import JsonMapping


class Alternative(BaseModel):
    token: str
    logprob: float = Field(le=1e-3)  # nats; more than rounding above 0 is no log-probability, and NaN neither


class TokenLogProbs(BaseModel):
    top_logprobs: list[Alternative] = []


class LogProbs(BaseModel):
    content: list[TokenLogProbs] | None = None


class Message(BaseModel):
    content: str | None = None


class Choice(BaseModel):
    message: Message
    logprobs: LogProbs | None = None


class ChatCompletion(BaseModel):
    """The part of a chat completion that judges read; a reply of another form is a failure, not half a reply."""

    choices: list[Choice]
    model: str = ""
    system_fingerprint: str | None = None


class Endpoint:
    """One server at `base_url` ("http://127.0.0.1:8000/v1").

    api_key_env: name of the environment variable that holds the key; None sends none. max_concurrent: requests under
    way at once. timeout_s: seconds without a byte from the server. max_retries: after no connection, a timeout, HTTP 408,
    409, 425, 429 and 5xx, and a reply that cannot be read, each after about twice the pause of the one before, from
    `backoff_s` up to a minute. Raises UserError for an address or key that cannot be right.
    """

    def __init__(
        self,
        base_url: str,
        api_key_env: str | None = None,
        max_concurrent: int = 8,
        timeout_s: float = 60.0,
        max_retries: int = 4,
        backoff_s: float = 0.5,
    ):
        self.base_url, self.max_concurrent = checked_url(base_url), max_concurrent
        patience = Patience(timeout_s, max_retries, backoff_s)
        self._client = HttpClient(self.base_url, _read_key(api_key_env), patience, max_concurrent)

    def ask(self, body: JsonMapping) -> ChatCompletion:
        """One chat completion. Raises NoAnswer when the last retry failed too."""
        return self._client.ask("/chat/completions", _read_reply, lambda: json.dumps(body).encode())

    def ask_all(self, make_bodies: Sequence[Callable[[], JsonMapping]]) -> list[ChatCompletion | NoAnswer]:
        """The outcome of each request, in the order of the requests."""

        def outcome(make_body: Callable[[], JsonMapping]) -> ChatCompletion | NoAnswer:
            try:
                return self.ask(make_body())
            except NoAnswer as failure:
                return failure

        pool = ThreadPoolExecutor(self.max_concurrent, thread_name_prefix="judge")
        try:
            return list(pool.map(outcome, make_bodies))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # an interrupt does not wait for the queue

    def served_models(self) -> list[str]:
        """What the server lists, empty where it does not say."""
        try:
            models = json.loads(self._client.send("/models"))["data"]
            return [str(model["id"]) for model in models]
        except (NoAnswer, ValueError, LookupError, TypeError):
            return []


def _read_reply(body: bytes) -> ChatCompletion:
    try:
        return ChatCompletion.model_validate_json(body)
    except ValidationError as error:
        raise NoAnswer("unreadable reply", status=200) from error


def _read_key(api_key_env: str | None) -> str | None:
    if api_key_env is None:
        return None
    key = os.environ.get(api_key_env, "").strip()
    if not key:
        raise UserError(f"api_key_env={api_key_env}: that environment variable is not set. Put the key into it.")
    return key
