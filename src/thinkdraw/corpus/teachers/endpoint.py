"""A teacher behind an OpenAI-compatible endpoint."""

import asyncio
import base64
import io
import os
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image
from pydantic import Field

from thinkdraw.config import StrictModel
from thinkdraw.corpus.teachers import instructions
from thinkdraw.corpus.teachers.teachers import BusyError, DeclinedError, TeacherReply, TeacherRequest, conversation
from thinkdraw.errors import UserError
from thinkdraw.images import to_data_uri, to_pil
from thinkdraw.runtime.endpoints import OPENAI, check_url, openai_key_for_url
from thinkdraw.runtime.json_types import JsonObject

if TYPE_CHECKING:
    from thinkdraw.runtime.http import NoAnswer

_LATER = {200, 408, 409, 425, 429, 500, 502, 503, 504, 529}  # another try may help; 200 is a reply that cannot be read
_NEVER = {400, 413, 422}  # the request itself is at fault


class EndpointSettings(StrictModel):
    """A server that speaks chat completions: OpenAI's own, vLLM, SGLang and others."""

    kind: Literal["endpoint"] = Field(
        default="endpoint",
        description="A model behind an OpenAI-compatible endpoint: OpenAI, vLLM, SGLang, `transformers serve`.",
    )
    base_url: str | None = Field(
        default=None,
        description="Address of the endpoint, such as http://localhost:8000/v1; null is OPENAI_BASE_URL if set, "
        "else OpenAI's own.",
    )
    model: str = Field(description="Name of the model at the endpoint.")
    key_env: str | None = Field(
        default=None,
        description="Environment variable that holds the API key; null is OPENAI_API_KEY for OpenAI's own "
        "address and no key for any other.",
    )
    language: str = Field(default="English", description="Language that the teacher is told to write in.")
    structured: Literal["json_schema", "json_object", "none"] = Field(
        default="json_schema",
        description="How the endpoint is made to answer in JSON: by a schema, as any JSON object, or not at all "
        "where it knows neither.",
    )
    temperature: float | None = Field(
        default=0.7, ge=0, description="Sampling temperature of the answers; null leaves it to the endpoint."
    )
    max_answer_tokens: int = Field(
        default=2000, ge=16, description="Longest answer in tokens; an answer that is cut there is asked for again."
    )
    max_side: int = Field(
        default=1024,
        ge=32,
        description="Longest side in pixels of a picture that is sent; a larger picture is sent smaller.",
    )
    concurrency: int = Field(default=16, ge=1, description="Requests under way at the same time.")
    timeout_s: float = Field(default=120.0, gt=0, description="Seconds that a request may take for its whole answer.")
    extra_body: dict[str, Any] = Field(
        default={},
        description="Further fields of every request, passed on as they are; a field set to null is taken out of "
        "the request.",
    )


class EndpointTeacher:
    """The model of an endpoint as a teacher."""

    def __init__(self, settings: EndpointSettings) -> None:
        from thinkdraw.runtime.chat.client import AsyncChat
        from thinkdraw.runtime.http import AsyncHttpClient, NoAnswer, RetryPolicy

        self.name, self.concurrency = settings.model, settings.concurrency
        self._settings, self._no_answer = settings, NoAnswer
        setting = "base_url" if settings.base_url else "OPENAI_BASE_URL"
        self._url = check_url(settings.base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI, setting)
        key = openai_key_for_url(self._url, "key_env", settings.key_env)
        if not key and self._url == OPENAI:
            raise UserError("OPENAI_API_KEY is not set. Export the key, or set base_url to a local server.")
        # The loop retries itself: a retry hidden in the client would be paid, but not counted against the budget.
        patience = RetryPolicy(settings.timeout_s, retries=0)
        self._client, self._has_key = AsyncHttpClient(self._url, key, patience, settings.concurrency), bool(key)
        self._chat = AsyncChat(self._client, self._url, settings.extra_body)

    async def ask(self, request: TeacherRequest) -> TeacherReply:
        settings = self._settings
        body = {"model": settings.model, "messages": await self._messages(request), "seed": request.seed}
        # OpenAI's newer models refuse the old name, and most other servers know no other. Where the guess is wrong, the
        # chat learns it from the refusal.
        body |= {"max_tokens" if settings.base_url else "max_completion_tokens": settings.max_answer_tokens}
        body |= self._options()
        try:
            reply = await self._chat.ask(body)
        except self._no_answer as failure:
            raise self._error_of(failure) from failure
        problem = None
        if reply.is_cut:
            problem = (
                "cut off",
                f"the answer was cut off at max_answer_tokens={settings.max_answer_tokens}; write less.",
            )
        elif reply.lack.startswith(("the model refused", "withheld")):
            problem = "refusal", "the answer refused the task; describe what can be seen, as JSON."
        tokens_out = reply.usage.completion_tokens or len(reply.text) // 4
        return TeacherReply(reply.text, reply.usage.prompt_tokens, tokens_out, problem)

    async def close(self) -> None:
        await self._client.close()

    async def _messages(self, request: TeacherRequest) -> list[dict[str, Any]]:
        turns = conversation(request, self._settings.language)
        messages: list[JsonObject] = [{"role": role, "content": text} for role, text in turns]
        if request.picture is not None:
            uri = await asyncio.to_thread(sent_picture, request.picture, self._settings.max_side)
            picture = {"type": "image_url", "image_url": {"url": uri}}
            messages[1]["content"] = [picture, {"type": "text", "text": turns[1][1]}]
        return messages

    def _options(self) -> dict[str, Any]:
        options: dict[str, Any] = {}
        if self._settings.temperature is not None:
            options["temperature"] = self._settings.temperature
        if self._settings.structured == "json_object":
            options["response_format"] = {"type": "json_object"}
        elif self._settings.structured == "json_schema":
            schema = {"name": "answer", "strict": True, "schema": instructions.schema()}
            options["response_format"] = {"type": "json_schema", "json_schema": schema}
        return options

    def _error_of(self, failure: "NoAnswer") -> Exception:
        from thinkdraw.runtime.http import NO_CONNECTION

        if failure.status is None or failure.status in _LATER:
            return BusyError(str(failure), failure.retry_after_s, failure.reason == NO_CONNECTION)
        if failure.status in _NEVER:
            return DeclinedError(str(failure))
        no_key = "No key was sent: set key_env to the name of its variable. " if not self._has_key else ""
        return UserError(
            f"{self._url} refuses to serve {self.name}: {failure}. {no_key if failure.status in (401, 403) else ''}"
            "Check key, model and address. Answers so far are stored."
        )


def sent_picture(picture: np.ndarray, max_side: int) -> str:
    """Encode a picture as a data URI, without the file's metadata.

    PNG up to 256 pixels a side, where it is small and exact; JPEG above.
    """
    if max(picture.shape[:2]) <= min(256, max_side):
        return to_data_uri(picture, quickly=True)
    image, buffer = to_pil(picture), io.BytesIO()
    if max(image.size) > max_side:
        image.thumbnail((max_side, max_side), Image.Resampling.BICUBIC)
    image.save(buffer, format="JPEG", quality=92)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
