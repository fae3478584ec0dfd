"""Chat requests to an OpenAI-compatible server: many at once, retried, in order."""

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from thinkdraw.runtime.chat.client import Chat
from thinkdraw.runtime.chat.completion import ChatCompletion
from thinkdraw.runtime.endpoints import check_url, key_for_url
from thinkdraw.runtime.http import HttpClient, NoAnswer, RetryPolicy
from thinkdraw.runtime.json_types import JsonMapping


class Endpoint:
    """One chat server at `base_url` ("http://127.0.0.1:8000/v1").

    api_key_env: name of the environment variable that holds the key; None sends none. max_concurrent: requests under
    way at once. timeout_s: for a whole answer.
    max_retries: further tries after no connection, a timeout, HTTP 408, 409, 425, 429 and 5xx, and a reply that cannot
    be read.
    The pause before a retry starts at `backoff_s` and about doubles each time, up to a minute.
    extra_body: further fields of every request; null removes one of ours. A field that the server refuses by name
    (max_tokens, temperature) is sent in another form, see `runtime.chat`.
    Raises UserError for an address that cannot be right, or that the key must not be sent to.
    """

    def __init__(
        self,
        base_url: str,
        api_key_env: str | None = None,
        max_concurrent: int = 8,
        timeout_s: float = 60.0,
        max_retries: int = 4,
        backoff_s: float = 0.5,
        extra_body: JsonMapping | None = None,
    ):
        self.base_url, self.max_concurrent = check_url(base_url), max_concurrent
        key = key_for_url(self.base_url, "api_key_env", api_key_env)
        client = HttpClient(self.base_url, key, RetryPolicy(timeout_s, max_retries, backoff_s), max_concurrent)
        self._chat = Chat(client, self.base_url, extra_body)

    @property
    def left_out(self) -> list[str]:
        """Fields that the server refuses; requests are sent without them."""
        return self._chat.dialect.dropped_fields

    def ask(self, body: JsonMapping) -> ChatCompletion:
        """Send one chat request. Raises NoAnswer when the last retry failed too."""
        return self._chat.ask(body)

    def ask_all(self, make_bodies: Sequence[Callable[[], JsonMapping]]) -> list[ChatCompletion | NoAnswer]:
        """Send many requests; return each one's outcome in the order of the requests."""

        def outcome(make_body: Callable[[], JsonMapping]) -> ChatCompletion | NoAnswer:
            try:
                return self.ask(make_body())
            except NoAnswer as failure:
                return failure

        pool = ThreadPoolExecutor(self.max_concurrent, thread_name_prefix="judge")
        try:
            return list(pool.map(outcome, make_bodies))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # so that Ctrl-C does not wait for queued requests

    def served_models(self) -> list[str]:
        """List the models that the server names; empty where it does not say."""
        try:
            models = json.loads(self._chat.client.send("/models"))["data"]
            return [str(model["id"]) for model in models]
        except (NoAnswer, ValueError, LookupError, TypeError, RecursionError):
            return []
