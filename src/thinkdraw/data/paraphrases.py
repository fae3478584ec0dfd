"""Paraphrases of generated prompts by a language model, checked for their demand.

The model is behind an OpenAI-compatible endpoint. A paraphrase is accepted if it says what the prompt's clauses demand: all nouns,
numbers, colours, textures and shapes are there and none is added, each colour is nearest to its own noun, and a relation is said of
the right pair.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pydantic import Field

from thinkdraw.config import StrictModel
from thinkdraw.data.leak_guard import normalise
from thinkdraw.data.structure.words import MATERIALS, MORE_COLORS, NUMBERS, OPPOSITE, WORDINGS, plural
from thinkdraw.data.text_diversity import split_label
from thinkdraw.errors import UserError
from thinkdraw.runtime.endpoints import check_url, openai_key_for_url
from thinkdraw.types import Prompt

if TYPE_CHECKING:
    from thinkdraw.runtime.http import HttpClient

INSTRUCTION = (
    "Rewrite this description of a picture in other words, as one sentence. Keep every object, number, colour, material, shape and "
    "position. Add no object and no attribute. Answer with the new description only.\n\nDescription: {}"
)
_COLORS = frozenset(normalise(color) for color in (*MORE_COLORS, "grey"))
_NUMBERS = {word: str(number) for number, word in NUMBERS.items() if number > 1}


class ParaphraseSettings(StrictModel):
    base_url: str = Field(description="Address of the OpenAI-compatible endpoint, such as http://localhost:8000/v1.")
    model: str = Field(description="Name of the model at the endpoint.")
    key_env: str | None = Field(
        default=None,
        description="Environment variable that holds the API key; null is OPENAI_API_KEY for OpenAI's own "
        "address and no key for any other.",
    )
    extra_body: dict[str, Any] = Field(
        default={},
        description="Further fields of every request, passed on as they are; a field set to null is taken out of "
        "the request.",
    )
    frac: float = Field(default=0.5, gt=0, le=1, description="Share of the prompts that are put into other words.")
    attempts: int = Field(
        default=2,
        ge=1,
        description="Replies that are asked for before a prompt keeps its own words; a reply that changes the "
        "demand is refused.",
    )
    temperature: float = Field(
        default=0.9, ge=0, description="Sampling temperature of the replies; higher gives more varied words."
    )
    parallel: int = Field(default=8, ge=1, description="Requests under way at the same time.")
    timeout_s: float = Field(default=60.0, gt=0, description="Seconds that a request may take.")


@dataclass(frozen=True)
class ParaphraseResult:
    """The prompts after paraphrasing.

    prompts: in order, those without an accepted paraphrase unchanged. refused: reason → number of refused replies.
    """

    prompts: list[Prompt]
    accepted: int
    refused: dict[str, int] = field(default_factory=dict)


def paraphrase(
    prompts: Sequence[Prompt], settings: ParaphraseSettings, client: "HttpClient | None" = None,
    chosen: Sequence[bool] | None = None,
) -> ParaphraseResult:  # fmt: skip
    """Paraphrase the `chosen` prompts (all if None); clauses and questions stay.

    client: of the endpoint; None makes one. Raises UserError if its package is missing or the endpoint fails.
    """
    ask = _open_endpoint(settings, client)

    def rewrite(prompt: Prompt) -> tuple[Prompt | None, list[str]]:
        reasons = []
        for _ in range(settings.attempts):
            text = _clean(ask(INSTRUCTION.format(prompt.text)))
            reason = find_change(prompt, text)
            if reason is None:
                return replace(prompt, text=text), reasons
            reasons.append(reason)
        return None, reasons

    rows = [i for i in range(len(prompts)) if chosen is None or chosen[i]]
    with ThreadPoolExecutor(settings.parallel) as pool:
        waiting = [pool.submit(rewrite, prompts[i]) for i in rows]
        try:
            answers = [future.result() for future in waiting]
        except BaseException:
            # One failure ends all, because the others would wait for the same timeout.
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    out = list(prompts)
    for i, (new, _) in zip(rows, answers):
        out[i] = new or out[i]
    refused = Counter(reason for _, reasons in answers for reason in reasons)
    return ParaphraseResult(out, sum(new is not None for new, _ in answers), dict(refused))


def find_change(prompt: Prompt, text: str) -> str | None:
    """Name what a paraphrase lacks, adds or mixes up; None if it holds.

    Names: noun, number, color, attribute, binding, relation, or "nothing new". A prompt without clauses must keep its numbers and
    colours.
    """
    words, own = _words(text), _words(prompt.text)
    if not words or words == own:
        return "nothing new"
    places = []
    for clause in prompt.include:
        attributes, noun = split_label(clause["class"])
        places.append(_positions(words, noun, plural(noun)))
        if not places[-1]:
            return "noun"
        attributes += [clause[k] for k in ("texture", "shape") if k in clause]
        if not all(_has_attribute(words, attribute) for attribute in attributes):
            return "attribute"
    if _numbers(words) != _numbers(own):
        return "number"
    nouns = {word for clause in prompt.include for word in normalise(clause["class"]).split()}
    if _colors(words) - nouns != _colors(own) - nouns:
        return "color"
    colors = [(i, word) for i, word in enumerate(words) if word in _COLORS - nouns]
    for clause, place in zip(prompt.include, places):
        if "color" in clause:
            if not _has_attribute(words, clause["color"]):
                return "color"
            far = {word: min(abs(i - place[0]) for i, other in colors if other == word) for _, word in colors}
            if far.get(normalise(clause["color"]), 0) > min(far.values(), default=0):
                return "binding"
        relation, target = clause.get("position") or clause.get("relation") or (None, 0)
        if relation and not _relation_is_said(words, place, relation, places[target]):
            return "relation"
    return None


def _words(text: str) -> list[str]:
    return ["gray" if word == "grey" else word for word in normalise(text).split()]


def _positions(words: Sequence[str], *phrases: str) -> list[int]:
    """Return the positions of the last word of each phrase in the text, ascending."""
    forms = [normalise(phrase).split() for phrase in phrases]
    ends = range(1, len(words) + 1)
    return [end - 1 for end in ends if any(list(words[max(0, end - len(form)) : end]) == form for form in forms)]


def _has_attribute(words: Sequence[str], attribute: str) -> bool:
    """Tell whether the words have the attribute.

    For a material that is also what the object is made of: wooden, of wood.
    """
    text = f" {' '.join(words)} "
    material = MATERIALS.get(attribute, attribute).removeprefix("made of ")
    return any(f" {normalise(form)} " in text for form in (attribute, material))


def _numbers(words: Sequence[str]) -> Counter[str]:
    """Count the numbers above one, in words or digits."""
    digits = [_NUMBERS.get(word, word) for word in words]
    return Counter(word for word in digits if word.isdecimal() and word != "1")


def _colors(words: Sequence[str]) -> set[str]:
    return {word for word in words if word in _COLORS}


def _relation_is_said(words: Sequence[str], subject: Sequence[int], relation: str, target: Sequence[int]) -> bool:
    """Tell whether the relation is said of subject and target.

    The opposite relation counts when it is said of target and subject.
    """
    opposite = OPPOSITE.get(relation, relation)
    for word, first, second in ((relation, subject, target), (opposite, target, subject)):
        for place in _positions(words, *WORDINGS.get(word, (word,))):
            # The nearest mentions before and after decide: "a cat and a dog. The dog is left of the cat"
            before = max((i for i in (*first, *second) if i < place), default=None)
            after = min((i for i in (*first, *second) if i > place), default=None)
            if before in first and after in second:
                return True
    return False


def _clean(reply: str) -> str:
    """Return the reply's first line with content, without quotes."""
    lines = [line.strip() for line in reply.splitlines() if line.strip()]
    return lines[0].strip("\"“”'` ") if lines else ""


def _open_endpoint(settings: ParaphraseSettings, client: "HttpClient | None") -> Callable[[str], str]:
    """Return a function from an instruction to the model's reply."""
    from thinkdraw.runtime.chat.client import Chat
    from thinkdraw.runtime.chat.completion import NO_CHOICES
    from thinkdraw.runtime.http import HttpClient, NoAnswer, RetryPolicy

    url = check_url(settings.base_url)
    if client is None:
        key = openai_key_for_url(url, "key_env", settings.key_env)
        client = HttpClient(url, key, RetryPolicy(settings.timeout_s, retries=2), settings.parallel)
    chat = Chat(client, url, settings.extra_body)

    def ask(instruction: str) -> str:
        messages = [{"role": "user", "content": instruction}]
        body = {"model": settings.model, "messages": messages, "temperature": settings.temperature}
        try:
            reply = chat.ask(body)
        except NoAnswer as failure:
            if failure.reason == NO_CHOICES:
                return ""
            raise UserError(
                f"the endpoint {url} did not answer for model {settings.model} ({failure}). Check that it runs and serves that "
                "model, and that key_env names its key."
            ) from failure
        return "" if reply.lack or reply.is_cut else reply.text

    return ask
