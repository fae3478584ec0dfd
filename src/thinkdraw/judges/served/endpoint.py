"""Chat requests to an OpenAI-compatible server: many at once, tried again where that may help, never mixed up."""

import os
import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from pydantic import BaseModel, Field, ValidationError

from thinkdraw.errors import UserError
from thinkdraw.runtime.endpoints import checked_url, retry_after_s
from thinkdraw.runtime.json_types import JsonMapping

try:
    import openai
except ModuleNotFoundError as error:
    raise UserError("judge openai needs the openai client: pip install 'thinkdraw[remote]'.") from error

MAX_WAIT_S = 60.0
"""The longest pause before a retry, whatever the back-off or the server's Retry-After say."""


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


class NoReply(Exception):
    """A request that got no usable reply. reason: a few words for counting. status: HTTP's, None where none came."""

    def __init__(self, reason: str, detail: str = "", status: int | None = None, retry_after_s: float | None = None):
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason, self.status, self.retry_after_s = reason, status, retry_after_s

    @property
    def may_pass(self) -> bool:
        """Whether the same request may succeed later."""
        return self.status is None or self.status in (200, 408, 409, 429) or self.status >= 500


class Endpoint:
    """One server at `base_url` ("http://127.0.0.1:8000/v1").

    api_key_env: name of the environment variable that holds the key; None sends none. max_concurrent: requests under
    way at once. timeout_s: seconds without a byte from the server. max_retries: after no connection, a timeout, HTTP 408,
    409, 429 and 5xx, and a reply that cannot be read, each after about twice the pause of the one before, from `backoff_s`.
    Raises UserError for an address or key that cannot be right.
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
        self.base_url = checked_url(base_url)
        self._key = _read_key(api_key_env)
        self.max_concurrent, self.max_retries, self.backoff_s = max_concurrent, max_retries, backoff_s
        # The client would send OPENAI_API_KEY to any server if it got no key at all.
        self._client = openai.OpenAI(
            base_url=self.base_url, api_key=self._key or "none", timeout=timeout_s, max_retries=0
        )
        self._jitter = random.Random()  # of its own: the global one belongs to the run's seed

    def ask(self, body: JsonMapping) -> ChatCompletion:
        """One chat completion. Raises NoReply when the last retry failed too."""
        for attempt in range(self.max_retries + 1):
            try:
                return self._ask_once(body)
            except NoReply as failure:
                if attempt == self.max_retries or not failure.may_pass:
                    raise
                pause_s = self.backoff_s * 2**attempt * self._jitter.uniform(0.5, 1.0)
                time.sleep(min(max(pause_s, failure.retry_after_s or 0.0), MAX_WAIT_S))
        raise AssertionError("unreachable")

    def ask_all(self, make_bodies: Sequence[Callable[[], JsonMapping]]) -> list[ChatCompletion | NoReply]:
        """The outcome of each request, in the order of the requests."""

        def outcome(make_body: Callable[[], JsonMapping]) -> ChatCompletion | NoReply:
            try:
                return self.ask(make_body())
            except NoReply as failure:
                return failure

        pool = ThreadPoolExecutor(self.max_concurrent, thread_name_prefix="judge")
        try:
            return list(pool.map(outcome, make_bodies))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # an interrupt does not wait for the queue

    def served_models(self) -> list[str]:
        """What the server lists, empty where it does not say."""
        try:
            return [model.id for model in self._client.models.list().data]
        except (openai.OpenAIError, ValueError, AttributeError, TypeError):
            return []

    def _ask_once(self, body: JsonMapping) -> ChatCompletion:
        try:
            response = self._client.chat.completions.with_raw_response.create(**body)
            return ChatCompletion.model_validate_json(response.http_response.content)
        except openai.APITimeoutError as error:
            raise NoReply("timeout") from error
        except openai.APIStatusError as error:
            detail = " ".join(error.response.text.split())[:200]
            raise NoReply(
                f"HTTP {error.status_code}",
                self._without_key(detail),
                error.status_code,
                retry_after_s(error.response.headers),
            ) from error
        except openai.APIConnectionError as error:
            raise NoReply("no connection", self._without_key(str(error.__cause__ or error))) from error
        except (openai.APIError, ValidationError) as error:
            raise NoReply("unreadable reply", status=200) from error

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text


def _read_key(api_key_env: str | None) -> str | None:
    if api_key_env is None:
        return None
    key = os.environ.get(api_key_env, "").strip()
    if not key:
        raise UserError(f"api_key_env={api_key_env}: that environment variable is not set. Put the key into it.")
    return key
