"""The form of a teacher's answer, and the check of it.

Every malformed answer has a kind, to count by, and a sentence that tells the teacher what to change.
"""

import json
import re
import unicodedata
from typing import Annotated, Any, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from thinkdraw.runtime.chat.thoughts import strip_thoughts

MAX_CHARACTERS = 40_000
"""Longest answer that is read."""

REFUSAL = re.compile(
    r"\bI(?:['’]m| am) (?:sorry|unable|not able)\b|\bI (?:cannot|can['’]?t|can not|won['’]t|am not able to|do not have the ability to) "
    r"(?:see|view|help|assist|provide|describe|comply|process|access|fulfil|create|write|analy[sz]e)"
    r"|\bas an? (?:AI|artificial intelligence|(?:large )?language model)\b",
    re.IGNORECASE,
)
INJECTION = re.compile(
    r"\b(?:ignore|disregard|forget|override)\b[\w ,]{0,40}\b(?:previous|prior|above|earlier|preceding|system)\b[\w ,]{0,20}"
    r"\b(?:instructions?|prompts?|messages?|rules|directions)\b"
    r"|\byou are now (?:a|an|the|in)\b|\bsystem prompt\b|<\|[^|<>]{1,40}\|>|\[/?INST\]|</?think>"
    r"|</?(?:begin_of_image|end_of_image|image_placeholder|script|iframe|style|system|assistant|user)\b",
    re.IGNORECASE,
)
# Controls, surrogates, private and unassigned characters; and marks that reverse the direction of the text after them.
_BANNED_CATEGORIES = {"Cc", "Cs", "Co", "Cn"}
_DIRECTION_MARKS = set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_FENCE = re.compile(r"\A```\w*\s*\n(.*?)\n?```\s*\Z", re.DOTALL)


class MalformedError(ValueError):
    """An answer that is not used.

    kind: a short name to count by. The message tells the teacher what to change.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def _clean(text: str) -> str:
    """Join a text to one line without blanks around it.

    Raises PydanticCustomError with the kind of what is wrong.
    """
    line = " ".join(text.split())
    if not line:
        raise PydanticCustomError("empty", "must not be empty")
    if not _is_plain(line):
        raise PydanticCustomError("control_characters", "holds control characters")
    if REFUSAL.search(line):
        raise PydanticCustomError("refusal", "refuses; describe what can be seen")
    if INJECTION.search(line):
        raise PydanticCustomError("injected_instructions", "holds instructions or markup; describe only")
    return line


def _is_plain(text: str) -> bool:
    if text.isascii():
        return text.isprintable()
    return not any(c in _DIRECTION_MARKS or unicodedata.category(c) in _BANNED_CATEGORIES for c in text)


Phrase = Annotated[str, AfterValidator(_clean), Field(max_length=600)]
Passage = Annotated[str, AfterValidator(_clean), Field(max_length=8000)]
Phrases = Annotated[list[Phrase], Field(min_length=1, max_length=24)]
Passages = Annotated[list[Passage], Field(min_length=1, max_length=24)]


class Answer(BaseModel):
    """A teacher's answer: five styles of prompt and four of rationale.

    The descriptions of the fields are what the teacher is told.
    """

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)

    short_caption: Phrase = Field(description="one plain sentence that names what matters most")
    paraphrases: Phrases = Field(description="two or three sentences that say the same in other words")
    tags: Phrases = Field(description="tags of one to three words: objects with their attributes, style, setting")
    object_prompts: Phrases = Field(description="each object as a noun phrase with its attributes")
    varied_captions: Phrases = Field(description="two or three captions of different length and tone")
    step_by_step: Passage = Field(
        description="how one would plan the picture step by step: setting, objects, places, details"
    )
    object_centric: Passages = Field(description="one or two sentences on each object: look, size, place, relations")
    region_descriptions: Passages = Field(description="what stands in each region, starting with the region's name")
    detailed_caption: Passage = Field(description="one dense paragraph with everything that can be seen")


LISTS = {name for name, field in Answer.model_fields.items() if get_origin(field.annotation) is list}
_KINDS = {
    "missing": "missing key",
    "too_short": "empty",
    "too_long": "too long",
    "string_too_long": "too long",
    "empty": "empty",
    "control_characters": "control characters",
    "refusal": "refusal",
    "injected_instructions": "injected instructions",
}


def parse_answer(text: str) -> Answer:
    """Parse the answer in a teacher's reply. Raises MalformedError.

    It is JSON, perhaps in a code fence, after a model's thoughts or after a few words.
    """
    if len(text) > MAX_CHARACTERS:
        raise MalformedError("too long", f"the answer has {len(text)} characters; at most {MAX_CHARACTERS} are read.")
    body = strip_thoughts(text)
    if not body:
        raise MalformedError("empty", "the answer was empty.")
    if fenced := _FENCE.match(body):
        body = fenced[1]
    begin, end = body.find("{"), body.rfind("}")
    if (begin < 0 or end < begin) and REFUSAL.search(body):
        raise MalformedError("refusal", "the answer refused the task; describe what can be seen, as JSON.")
    value = _parse_json(body[begin : end + 1] if begin >= 0 and not body.startswith("[") else body)
    if not isinstance(value, dict):
        raise MalformedError("wrong type", f"the answer is a JSON {type(value).__name__}; it must be an object.")
    try:
        return Answer.model_validate(value)
    except ValidationError as error:
        raise _malformed_error(error) from None


def _parse_json(body: str) -> Any:
    try:
        return json.loads(body)
    except json.JSONDecodeError as error:
        kind = "control characters" if "control character" in error.msg else "not JSON"
        raise MalformedError(kind, f"the answer is not valid JSON: {error.msg} at character {error.pos}.") from None
    except (RecursionError, ValueError):  # nested thousands deep; a number of thousands of digits
        raise MalformedError("not JSON", "the answer is not the JSON object that was asked for.") from None


def _malformed_error(error: ValidationError) -> MalformedError:
    problems = error.errors(include_url=False, include_input=False, include_context=False)
    listed = [f"{'.'.join(str(key) for key in p['loc'])}: {p['msg'][:120]}" for p in problems[:5]]
    more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
    return MalformedError(
        _KINDS.get(problems[0]["type"], "wrong type"), f"the answer does not fit the schema: {'; '.join(listed)}{more}."
    )
