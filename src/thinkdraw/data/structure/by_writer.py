"""The structure of any prompt, by a judge that writes.

It is a language model behind an endpoint, or a local one.
"""

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
    """A `structure.Parser` that asks a `Writer`.

    name: of its model, under which answers are kept. A reply counts if it is an object of the requested form and all its words are the
    description's. Any other reply, and no reply, gives None and is requested again next time.
    """

    def __init__(self, writer: Writer, name: str):
        if not isinstance(writer, Writer):
            raise TypeError(f"{type(writer).__name__} has no .write(requests): give a writer.")
        self.writer, self.name = writer, f"writer:{name}"

    def __call__(self, texts: list[str]) -> list[Structure | None]:
        replies = self.writer.write([Request(INSTRUCTION.format(text)) for text in texts])
        return [structure_of(reply, text) for reply, text in zip(replies, texts, strict=True)]


def structure_of(reply: str | None, text: str) -> Structure | None:
    """Read the structure from a reply about a description.

    None where the reply has another form, or says what the description does not.
    """
    if reply is None or "{" not in reply:
        return None
    try:
        row: Any = json.loads(reply[reply.index("{") : reply.rindex("}") + 1])
        structure = Structure.of(prompt_of({**row, "prompt": text}, "reply", 0))
    except (ValueError, TypeError, UserError):
        return None
    return structure if structure.nouns and _is_said(structure, text) else None


def _is_said(structure: Structure, text: str) -> bool:
    """Tell whether all words are the description's, in singular or plural.

    Every counted or placed object must be one of the nouns.
    """
    words = {word for said in text.lower().split() for word in (said.strip(".,;:!?\"'()"),)}
    words |= {singular(word) for word in words}
    relation = structure.relation
    phrases = [*structure.nouns, *structure.attributed, *([relation.word] if relation else [])]
    things = {noun for noun, _ in structure.counts} | ({relation.subject, relation.object} if relation else set())
    if not all(isinstance(number, int) and number > 0 for _, number in structure.counts):
        return False
    return things <= set(structure.nouns) and all(set(phrase.lower().split()) <= words for phrase in phrases)
