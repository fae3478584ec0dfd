"""Reads a chat completion: its answer, or what is wrong with it."""

import json
import re
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, Field, ValidationError

from thinkdraw.runtime.chat.thoughts import drop_last_word, strip_thoughts
from thinkdraw.runtime.http import NoAnswer, error_message, printable_line
from thinkdraw.runtime.json_types import JsonMapping

NO_CHOICES = "a reply without an answer"


def _join_content(content: object) -> object:
    """Join a message's content, which may be a list of texts and marked thoughts."""
    if isinstance(content, list) and all(isinstance(part, Mapping) for part in content):
        content = "".join(map(_part_text, content))
    # Half of a surrogate pair is no text. As a NUL it is refused wherever control characters are.
    return re.sub(r"[\ud800-\udfff]", "\0", content) if isinstance(content, str) else content


def _part_text(part: JsonMapping) -> str:
    kind = part.get("type", "text")
    if kind in ("thinking", "reasoning"):
        return f"<think>{printable_line(str(part.get(kind) or part.get('text')))}</think>"
    text = part.get("text") if kind in ("text", "output_text") else ""
    return text if isinstance(text, str) else ""


def _text_or_none(value: object) -> str | None:
    return printable_line(value) if isinstance(value, str) else None


def _count(value: object) -> int:
    return int(value) if isinstance(value, int | float) and 0 <= value < 1e9 else 0


Text = Annotated[str | None, BeforeValidator(_text_or_none)]
Count = Annotated[int, BeforeValidator(_count)]


class Alternative(BaseModel):
    token: str = Field(description="Text of a token that could have stood here.")
    # Above 0 by more than rounding, or NaN, it is no log-probability.
    logprob: float = Field(le=1e-3, description="Its log-probability in nats; at most rounding above 0.")


class TokenLogProbs(BaseModel):
    top_logprobs: Annotated[list[Alternative], BeforeValidator(lambda value: value or [])] = Field(
        default=[], description="The likeliest tokens at this place, with their log-probabilities."
    )


class LogProbs(BaseModel):
    content: list[TokenLogProbs] | None = Field(
        default=None, description="One entry for each token of the answer; null where the server gives none."
    )


class Message(BaseModel):
    content: Annotated[str | None, BeforeValidator(_join_content)] = Field(
        default=None, description="Text of the answer, its parts joined; null where there is none."
    )
    refusal: Text = Field(default=None, description="Why the model refused to answer; null where it did not.")
    reasoning_content: Text = Field(
        default=None, description="The model's thoughts before its answer, as vLLM and SGLang name them."
    )
    reasoning: Text = Field(
        default=None, description="The model's thoughts before its answer, as other servers name them."
    )


class Choice(BaseModel):
    message: Message = Field(description="The answer and what came with it.")
    logprobs: LogProbs | None = Field(
        default=None, description="Log-probabilities of its tokens, where they were asked for."
    )
    finish_reason: Text = Field(
        default=None, description="Why the answer ended: stop, length, content_filter or the server's own word."
    )


class Usage(BaseModel):
    prompt_tokens: Count = Field(default=0, description="Tokens that were sent, as the server counts.")
    completion_tokens: Count = Field(default=0, description="Tokens that were written, as the server counts.")


class ChatCompletion(BaseModel):
    """The fields of a chat completion that are read.

    A reply of another form is a failure, not half a reply.
    """

    choices: list[Choice] = Field(min_length=1, description="Answers to the request; the first one is read.")
    model: Annotated[str, BeforeValidator(lambda value: value or "")] = Field(
        default="", description="Name of the model that answered."
    )
    system_fingerprint: Text = Field(
        default=None, description="The server's mark of its own configuration; null where it gives none."
    )
    usage: Annotated[Usage, BeforeValidator(lambda value: value if isinstance(value, dict) else {})] = Field(
        default=Usage(), description="How many tokens the request took."
    )

    @cached_property
    def text(self) -> str:
        """The first choice's text without thoughts."""
        return strip_thoughts(self.choices[0].message.content or "")

    @property
    def is_cut(self) -> bool:
        return (self.choices[0].finish_reason or "").lower() in ("length", "max_tokens")

    @property
    def whole_words(self) -> str:
        """`text` without the last word where it was cut, since that may be incomplete."""
        return drop_last_word(self.text) if self.is_cut else self.text

    @property
    def lack(self) -> str:
        """Why there is no text, "" where there is one."""
        choice = self.choices[0]
        if choice.message.refusal:
            return "the model refused"
        if choice.finish_reason == "content_filter":
            return "withheld by a content filter"
        if self.text:
            return ""
        if self.excerpt:
            return "thoughts that were cut off before an answer" if self.is_cut else "thoughts without an answer"
        return "cut off before an answer" if self.is_cut else "empty answer"

    @property
    def excerpt(self) -> str:
        """The beginning of whatever came, even a refusal or a thought, for people to see."""
        message = self.choices[0].message
        texts = (message.refusal, message.content, message.reasoning_content, message.reasoning)
        return printable_line(next(filter(None, texts), ""))[:80]


def read_completion(body: bytes) -> ChatCompletion:
    """Read the body of a response.

    Raises NoAnswer for a body that is no completion, with the server's own words.
    """
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise NoAnswer(
            "unreadable reply", printable_line(body[:200].decode(errors="replace"))[:80], status=200
        ) from error
    if isinstance(value, dict) and value.get("error") and not value.get("choices"):
        code = value["error"].get("code") if isinstance(value["error"], dict) else None
        status = code if isinstance(code, int) and 400 <= code < 600 else 200
        raise NoAnswer("an error in place of a reply", error_message(body), status)
    if isinstance(value, dict) and value.get("choices") == []:
        raise NoAnswer(NO_CHOICES, "its list of choices is empty", status=200)
    try:
        return ChatCompletion.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        field = ".".join(map(str, first["loc"]))
        raise NoAnswer("unreadable reply", printable_line(f"{field}: {first['msg']}")[:120], status=200) from error
