"""Chat with one OpenAI-compatible server in its dialect."""

import json

from thinkdraw.runtime.chat.completion import ChatCompletion, read_completion
from thinkdraw.runtime.chat.dialect import Dialect, merge_fields
from thinkdraw.runtime.http import AsyncHttpClient, HttpClient, NoAnswer
from thinkdraw.runtime.json_types import JsonMapping

CHAT = "/chat/completions"


class Chat:
    """Sends chat requests to one server in its dialect.

    extra_body: further fields, as in `merge_fields`.
    """

    def __init__(self, client: HttpClient, where: str, extra_body: JsonMapping | None = None) -> None:
        self.client, self._extra, self.dialect = client, dict(extra_body or {}), Dialect(where, extra_body)

    def ask(self, body: JsonMapping) -> ChatCompletion:
        """Send a request. Raises NoAnswer when the last try has failed too."""
        body = merge_fields(body, self._extra)
        while True:
            sent = self.dialect.translate(body)
            try:
                return self.client.ask(CHAT, read_completion, lambda sent=sent: json.dumps(sent).encode())
            except NoAnswer as refusal:
                if not self.dialect.learn(sent, refusal):
                    raise


class AsyncChat:
    """Sends as `Chat` does, for a loop with its own rules of retrying."""

    def __init__(self, client: AsyncHttpClient, where: str, extra_body: JsonMapping | None = None) -> None:
        self.client, self._extra, self.dialect = client, dict(extra_body or {}), Dialect(where, extra_body)

    async def ask(self, body: JsonMapping) -> ChatCompletion:
        body = merge_fields(body, self._extra)
        while True:
            sent = self.dialect.translate(body)
            try:
                return read_completion(await self.client.send(CHAT, json.dumps(sent).encode()))
            except NoAnswer as refusal:
                if not self.dialect.learn(sent, refusal):
                    raise
