"""The structure of any English prompt, by a spaCy model that the user installs."""

import re
from typing import Any

from thinkdraw.data.structure.by_templates import COUNTS, PLACES
from thinkdraw.data.structure.structure import Structure
from thinkdraw.errors import UserError
from thinkdraw.types import Relation

_PLACE = re.compile(rf"\b(?:{'|'.join(PLACES)})\b", re.IGNORECASE)
_OPENING = re.compile(r"^(?:an?|the) (?:photo|photograph|picture|image) of ", re.IGNORECASE)


class SpacyParser:
    """A `structure.Parser` by a spaCy model.

    model: a name that `spacy.load` knows, or a loaded pipeline with tagger, parser and lemmas. Raises UserError where spaCy or the model
    is not installed.
    """

    def __init__(self, model: Any = "en_core_web_sm"):
        self.nlp = _load(model) if isinstance(model, str) else model
        meta = self.nlp.meta
        self.name = f"spacy:{meta['lang']}_{meta['name']}-{meta['version']}"

    def __call__(self, texts: list[str]) -> list[Structure | None]:
        return [structure_of(doc) for doc in self.nlp.pipe(_OPENING.sub("", text) for text in texts)]


def structure_of(doc: Any) -> Structure | None:
    """Read nouns, attributes, counts and a relation from a parsed prompt.

    Nouns are the lemmas of the noun chunks' heads with their compounds. The relation is between the two nearest to its word. Attributes
    come before the noun ("a red dog") or are said of it ("the dog is red"). None without a noun.
    """
    place = _PLACE.search(doc.text)
    begin, end = place.span() if place else (len(doc.text), len(doc.text))
    # spaCy also takes "the left" in "on the left of" for a noun chunk.
    chunks = [
        chunk for chunk in doc.noun_chunks
        if chunk.root.pos_ in ("NOUN", "PROPN") and (chunk.end_char <= begin or chunk.start_char >= end)
    ]  # fmt: skip
    if not chunks:
        return None
    before = [chunk for chunk in chunks if chunk.end_char <= begin]
    after = [chunk for chunk in chunks if chunk.start_char >= end]
    relation = None
    if place and before and after:
        relation = Relation(_noun(before[-1]), place[0].lower(), _noun(after[0]))
    return Structure(
        nouns=tuple(_noun(chunk) for chunk in chunks),
        attributed=tuple(f"{' '.join(words)} {_noun(chunk)}" for chunk in chunks if (words := _attributes(chunk))),
        counts=tuple((_noun(chunk), count) for chunk in chunks if (count := _count(chunk))),
        relation=relation,
    )


def _noun(chunk: Any) -> str:
    compounds = [token.text for token in chunk if token.dep_ == "compound" and token.head == chunk.root]
    return " ".join([*compounds, chunk.root.lemma_]).lower()


def _attributes(chunk: Any) -> list[str]:
    root = chunk.root
    said = [token.text.lower() for token in chunk if token.dep_ == "amod" and token.head == root]
    if root.dep_ == "nsubj" and root.head.lemma_ == "be":
        said += [token.text.lower() for token in root.head.children if token.dep_ == "acomp"]
    return said


def _count(chunk: Any) -> int | None:
    for token in chunk:
        if token.dep_ == "nummod" and token.head == chunk.root:
            word = token.text.lower()
            return COUNTS.get(word, int(word) if word.isdecimal() else None)
    return None


def _load(model: str) -> Any:
    try:
        import spacy  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError as error:
        raise UserError(
            "structure by spaCy needs spaCy: pip install spacy, and a model: python -m spacy download en_core_web_sm."
        ) from error
    try:
        return spacy.load(model)
    except OSError as error:
        raise UserError(f"spaCy has no model {model!r}. Install it: python -m spacy download {model}.") from error
