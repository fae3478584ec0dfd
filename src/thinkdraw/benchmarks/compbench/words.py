"""What a T2I-CompBench++ prompt asks for, read off its words.

That is the relation, its two things, and the numbers. Words, their order and the oddities are those of
github.com/Karine-Huang/T2I-CompBench (arXiv 2307.06350), on tokens as spaCy's en_core_web_sm gives them.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol

Token = tuple[str, str]
"""(text, spaCy's universal part of speech)."""

RELATIONS_2D = (
    "on side of", "next to", "near", "on the left of", "on the right of", "on the bottom of", "on the top of", "on top of",
)  # fmt: skip
RELATIONS_3D = ("in front of", "behind", "hidden")
PREPOSITIONS = ("on top of", "on bottom of", "on the left", "on the right", "next to", "on side of", "near")
"""The two things of a prompt of the complex category stand around these."""
PERSONS = ("girl", "boy", "man", "woman")
NOT_ASKED = ("top", "the side", "the left", "the right")
"""Noun chunks that BLIP-VQA is not asked about."""
MAX_CHUNKS = 8
_ONE = ("a", "an", "one")
_NUMBERS = {"a": 1, "an": 1, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8}


class PromptParse(Protocol):
    """A prompt's noun chunks and tokens, in order."""

    @property
    def chunks(self) -> Sequence[str]: ...

    @property
    def tokens(self) -> Sequence[Token]: ...


def relation_in(prompt: str, words: Sequence[str]) -> str | None:
    """Return the first of `words` that occurs in the prompt, even inside a word."""
    return next((word for word in words if word in prompt), None)


def first_and_last_noun(tokens: Sequence[Token]) -> tuple[str, str] | None:
    """Find the two things of a spatial prompt, each a single word.

    None without any NOUN.
    """
    nouns = [text for text, pos in tokens if pos == "NOUN"]
    return (person_for(nouns[0]), person_for(nouns[-1])) if nouns else None


def nouns_around_prepositions(tokens: Sequence[Token]) -> tuple[str, str] | None:
    """Find the two things of a prompt of the complex category.

    None unless there are exactly two.
    """
    nouns: list[str] = []
    for i in range(len(tokens)):
        # The three next tokens, then two, then one; at the end of the prompt a longer span is cut to what is left.
        length = next((n for n in (3, 2, 1) if _span(tokens, i, n) in PREPOSITIONS), None)
        if length:
            before = [text for text, pos in tokens[:i] if pos in ("NOUN", "PROPN")]
            nouns += before[-1:] + _noun_after(tokens[i + length :])
    return (person_for(nouns[0]), person_for(nouns[1])) if len(nouns) == 2 else None


def _noun_after(tokens: Sequence[Token]) -> list[str]:
    """Find the first NOUN, or the last word of the first proper name.

    A name that ends the prompt does not count, as upstream.
    """
    if nouns := [text for text, pos in tokens if pos == "NOUN"]:
        return nouns[:1]
    return [text for (text, pos), (_, following) in pairwise(tokens) if pos == "PROPN" and following != "PROPN"][:1]


def _span(tokens: Sequence[Token], start: int, length: int) -> str:
    return " ".join(text for text, _ in tokens[start : start + length])


def person_for(noun: str) -> str:
    """Replace girl, boy, man and woman by person, as detectors call them."""
    return "person" if noun in PERSONS else noun


def without_adjectives(tokens: Sequence[Token]) -> str:
    """Drop a complex prompt's adjectives, for CLIP to compare with the picture."""
    return " ".join(text for text, pos in tokens if pos != "ADJ")


def attribute_questions(chunks: Sequence[str]) -> list[str]:
    """Write BLIP-VQA's questions, "a green bench?", about the first 8 noun chunks.

    Chunks in `NOT_ASKED` do not count.
    """
    return [f"{chunk}?" for chunk in chunks if chunk not in NOT_ASKED][:MAX_CHUNKS]


def counts_in_prompt(words: Sequence[str], objects: Sequence[tuple[str, str]]) -> list[tuple[str, int]]:
    """Read (thing, number) for each number word before a known thing.

    A thing has one or two words. words: the prompt's tokens as they are written.
    objects: (singular, plural) in lower case, as in new_objects.txt.
    """
    singulars, plurals = [one for one, _ in objects], [many for _, many in objects]
    counts: list[tuple[str, int]] = []
    for i, number in enumerate(words):
        if number not in _NUMBERS:
            continue
        pair, word = " ".join(words[i + 1 : i + 3]), words[i + 1] if i + 1 < len(words) else ""
        if i + 2 < len(words) and (pair in singulars or pair in plurals):
            if pair in plurals and number not in _ONE:
                counts.append((singulars[plurals.index(pair)], _NUMBERS[number]))
            else:
                counts.append((pair, 1))
        elif word in singulars and number in _ONE:
            counts.append((word, 1))
        elif word in plurals:
            counts.append((singulars[plurals.index(word)], _NUMBERS[number]))
    return counts
