"""The structure of prompts that follow a template, by rules.

For example "a red dog and two cats", or "a photo of a cup left of a ring". A prompt that does not fit word by word is left alone:
half-understood, it would reward what the prompt did not ask for.
"""

import re

from thinkdraw.data.rewrites import INVERSE
from thinkdraw.data.structure.structure import Structure
from thinkdraw.data.structure.words import (
    GROUPS,
    MATERIALS,
    MORE_COLORS,
    NUMBERS,
    SHAPES,
    TEXTURES,
    WORDINGS,
    plural,
)
from thinkdraw.types import Relation

COUNTS = {word: number for number, word in NUMBERS.items()} | {"nine": 9, "ten": 10}
PLACES = tuple(
    sorted(
        {
            *INVERSE, *(wording for wordings in WORDINGS.values() for wording in wordings), "on side of", "on the top of",
            "on the bottom of", "on the left side of", "on the right side of", "on the side of", "underneath", "adjacent to",
            "hidden by", "hidden behind", "inside of", "inside",
        },
        key=lambda wording: (-len(wording), wording),
    )
)  # fmt: skip
"""Wordings of relations between two things, longer ones first."""
ATTRIBUTES = frozenset(
    (
        *MORE_COLORS, *TEXTURES, *MATERIALS, *SHAPES, "gold", "grey", "tan", "cyan", "violet", "metallic", "fabric", "wool",
        "woolen", "cotton", "brick", "porcelain", "steel", "big", "small", "large", "tiny", "huge", "tall", "short", "long",
        "thin", "thick", "wide", "narrow", "circular", "spherical", "pyramidal", "curved", "flat", "soft", "hard", "wet",
        "sleek", "teardrop", "diamond", "crescent", "colorful", "bright", "dark", "old", "new", "worn", "fresh", "ripe", "crisp",
        "juicy", "delicate", "sharp", "round", "square", "oval", "cubic",
    )
)  # fmt: skip
# Words that show that a phrase is not just attributes and a noun.
_NO_NOUN = frozenset(
    re.findall(
        r"\w+",
        """a an the and or of in on at by to with from for is are was were be being has have had while that which who its his her
        their it he she they us this these those as into onto through during against along around up down sat stood lay hung""",
    )
)
_KNOWN = frozenset(noun for nouns in GROUPS.values() for noun in nouns)
_LAST_WORDS = frozenset(("man", "woman", "child", "person", *(known.split()[-1] for known in _KNOWN)))
_SINGULAR = {plural(noun): noun for noun in _LAST_WORDS}

_OPENING = re.compile(r"(?:(?:an?|the) (?:photo|photograph|picture|image) of|there (?:is|are)) ")
_STATED = re.compile(r"the ([^,]+?) (?:is|are) (?:made of )?([\w-]+)")
_PLACED = re.compile(
    rf"(?P<subject>[^,]+?) (?:(?:is|are|was|were) )?(?P<word>{'|'.join(PLACES)}) (?P<object>[^,]+?)(?:,(?: and)? (?P<rest>.+))?"
)
_MADE_OF = {said.removeprefix("made of "): material for material, said in MATERIALS.items()}


class RuleParser:
    """A `structure.Parser` by the rules of this file."""

    name = "rules"

    def __call__(self, texts: list[str]) -> list[Structure | None]:
        return [parse_template(text) for text in texts]


def parse_template(text: str) -> Structure | None:
    """Return the structure of a prompt that follows a template, None for others.

    The templates are GenEval's, T2I-CompBench's and this project's. An indefinite article is no count: two dogs satisfy "a dog", but not
    "one dog".
    """
    sentence = " ".join(text.lower().rstrip(" .").split())
    sentence = _OPENING.sub("", sentence, count=1) if _OPENING.match(sentence) else sentence
    if stated := _all_stated(sentence):
        return _structure(stated)
    if placed := _PLACED.fullmatch(sentence):
        things = [_thing(placed["subject"]), _thing(placed["object"]), *_things(placed["rest"] or "")]
        subject, object = things[:2]
        if subject is None or object is None:
            return None
        return _structure(things, Relation(subject[0], placed["word"], object[0]))
    return _structure(_things(sentence))


NounPhrase = tuple[str, str, int | None]
"""(noun, attributes, count), in the singular."""


def _structure(things: "list[NounPhrase | None]", relation: Relation | None = None) -> Structure | None:
    phrases = [thing for thing in things if thing is not None]
    if not phrases or len(phrases) < len(things):
        return None
    return Structure(
        nouns=tuple(noun for noun, _, _ in phrases),
        attributed=tuple(f"{attributes} {noun}" for noun, attributes, _ in phrases if attributes),
        counts=tuple((noun, count) for noun, _, count in phrases if count is not None),
        relation=relation,
    )


def _all_stated(said: str) -> "list[NounPhrase | None]":
    """Parse "the cup is red and the door is made of wood"; empty for other sentences."""
    parts = [_STATED.fullmatch(part) for part in said.split(" and ")]
    things: list[NounPhrase | None] = []
    for part in parts:
        word = _MADE_OF.get(part[2], part[2]) if part else ""
        thing = _thing(f"a {part[1]}") if part else None
        if thing is None or word not in ATTRIBUTES:
            return []
        things.append((thing[0], f"{thing[1]} {word}".strip(), None))
    return things


def _things(said: str) -> "list[NounPhrase | None]":
    return [_thing(phrase) for phrase in re.split(r", and |, | and ", said)] if said else []


def _thing(phrase: str) -> NounPhrase | None:
    """Parse "two red dogs": determiner or number, attributes, noun; else None.

    A bare plural needs an attribute.
    """
    words = phrase.split()
    count = COUNTS.get(words[0], int(words[0]) if words[0].isdecimal() else None)
    is_plural = count is not None and count != 1
    if count is not None or words[0] in ("a", "an", "the"):
        words = words[1:]
    elif words[0] in ATTRIBUTES and len(words) > 1:
        is_plural = True
    else:
        return None
    if is_plural and words:
        words[-1] = singular(words[-1])
    attributes = []
    while len(words) > 1 and words[0] in ATTRIBUTES and " ".join(words) not in _KNOWN:
        attributes.append(words.pop(0))
    return (" ".join(words), " ".join(attributes), count) if _is_noun(words) else None


def _is_noun(words: list[str]) -> bool:
    """Tell whether this may be a noun of one to three words.

    Not if it seems to say what the object does, as "cat sleeping".
    """
    if not 0 < len(words) <= 3 or not all(re.fullmatch(r"[a-z][a-z'-]*", word) for word in words):
        return False
    does = any(word.endswith(("ing", "ed")) and word not in _LAST_WORDS for word in words[1:])
    return not does and not _NO_NOUN & set(words) and not ATTRIBUTES & set(words[1:-1])


def singular(word: str) -> str:
    """Return the singular of a plural; other words are returned as they are."""
    if word in _SINGULAR:
        return _SINGULAR[word]
    if word[:-1] in _LAST_WORDS or word.endswith(("xs", "chs", "shs", "ys")):
        return word[:-1]  # GenEval forms every plural with a plain s
    if word.endswith(("sses", "xes", "ches", "shes")) or (word.endswith("uses") and not word.endswith("ouses")):
        guess = word[:-2]
    else:
        guess = word[:-3] + "y" if word.endswith("ies") else word[:-1]
    return guess if plural(guess) == word else word
