"""The structure of any prompt, by a judge that writes: a language model behind an endpoint, or a local one."""

import json
from typing import Any

from thinkdraw.data.prompt_files import prompt_of
from thinkdraw.data.structure.by_templates import singular
from thinkdraw.data.structure.structure import Structure
from thinkdraw.errors import UserError
from thinkdraw.types import Request, Writer

INSTRUCTION = """List what this description of a picture asks for, as one JSON object and nothing else:
{{"nouns": [every object, singular, without attributes],
 "attr_nouns": [every object that has attributes, with them before the singular noun, such as "red dog"],
 "numeracy_info": [{{"obj_name": object, "num": number}} for every object with a stated number],
 "spatial_info": {{"obj1": object, "locality": the words of the description for where it stands, "obj2": the other object}}
   or null if it states no place}}
Use only words of the description. Objects in numeracy_info and spatial_info are among the nouns.

Description: {}"""


class WriterParser:
    """See `structure.Parser`. writer: any `Writer`. name: of its model, under which answers are kept.

    A reply counts if it is such an object and all its words are the description's; others, and no reply, give None and are
    asked again next time.
    """

    def __init__(self, writer: Writer, name: str):
        if not isinstance(writer, Writer):
            raise TypeError(f"{type(writer).__name__} has no .write(requests): give a writer.")
        self.writer, self.name = writer, f"writer:{name}"

    def __call__(self, texts: list[str]) -> list[Structure | None]:
        replies = self.writer.write([Request(INSTRUCTION.format(text)) for text in texts])
        return [structure_of(reply, text) for reply, text in zip(replies, texts, strict=True)]


def structure_of(reply: str | None, text: str) -> Structure | None:
    """What a reply says of a description; None where it is not of the asked form, or says what the description does not."""
    if reply is None or "{" not in reply:
        return None
    try:
        row: Any = json.loads(reply[reply.index("{") : reply.rindex("}") + 1])
        found = Structure.of(prompt_of({**row, "prompt": text}, "reply", 0))
    except (ValueError, TypeError, UserError):
        return None
    return found if found.nouns and _is_said(found, text) else None


def _is_said(found: Structure, text: str) -> bool:
    """Whether every word is the description's, in singular or plural, and every counted or placed thing one of the nouns."""
    words = {word for said in text.lower().split() for word in (said.strip(".,;:!?\"'()"),)}
    words |= {singular(word) for word in words}
    place = found.relation
    phrases = [*found.nouns, *found.attributed, *([place.word] if place else [])]
    things = {noun for noun, _ in found.counts} | ({place.subject, place.object} if place else set())
    if not all(isinstance(number, int) and number > 0 for _, number in found.counts):
        return False
    return things <= set(found.nouns) and all(set(phrase.lower().split()) <= words for phrase in phrases)
