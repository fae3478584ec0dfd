"""On documents annotated by hand; what spaCy's own objects give for the same words is compared where it is installed."""

import sys
from dataclasses import dataclass, field

import pytest

from thinkdraw.data.structure.by_spacy import SpacyParser, structure_of
from thinkdraw.data.structure.structure import Structure
from thinkdraw.errors import UserError
from thinkdraw.types import Relation

# (word, lemma, part of speech, dependency, index of the head)
RED_DOGS = [
    ("Two", "two", "NUM", "nummod", 2), ("red", "red", "ADJ", "amod", 2), ("dogs", "dog", "NOUN", "nsubj", 3),
    ("sit", "sit", "VERB", "ROOT", 3), ("on", "on", "ADP", "prep", 3), ("the", "the", "DET", "det", 6),
    ("left", "left", "NOUN", "pobj", 4), ("of", "of", "ADP", "prep", 6), ("a", "a", "DET", "det", 10),
    ("coffee", "coffee", "NOUN", "compound", 10), ("table", "table", "NOUN", "pobj", 7),
]  # fmt: skip
CUP_IS_RED = [
    ("The", "the", "DET", "det", 1), ("cup", "cup", "NOUN", "nsubj", 2), ("is", "be", "AUX", "ROOT", 2),
    ("red", "red", "ADJ", "acomp", 2), ("and", "and", "CCONJ", "cc", 2), ("it", "it", "PRON", "conj", 2),
]  # fmt: skip
CHUNKS = {"red dogs": [(0, 3), (5, 7), (8, 11)], "cup": [(0, 2), (5, 6)]}


@dataclass(eq=False)
class Token:
    text: str
    lemma_: str
    pos_: str
    dep_: str
    head: "Token | None" = None
    children: list = field(default_factory=list)


class Chunk:
    def __init__(self, doc, begin, end):
        self.tokens = doc.tokens[begin:end]
        self.root = next(t for t in self.tokens if t.head not in self.tokens)
        self.start_char = len(" ".join([*(t.text for t in doc.tokens[:begin]), ""]))
        self.end_char = self.start_char + len(" ".join(t.text for t in self.tokens))

    def __iter__(self):
        return iter(self.tokens)


class Doc:
    def __init__(self, rows, chunks):
        self.tokens = [Token(*row[:4]) for row in rows]
        for token, row in zip(self.tokens, rows):
            token.head = self.tokens[row[4]]
            token.head.children.append(token)
        self.text = " ".join(token.text for token in self.tokens)
        self.noun_chunks = [Chunk(self, *span) for span in chunks]


def real(rows):
    spacy = pytest.importorskip("spacy")
    words, lemmas, pos, deps, heads = zip(*rows)
    return spacy.tokens.Doc(
        spacy.blank("en").vocab, words=words, lemmas=lemmas, pos=pos, deps=deps, heads=heads, spaces=[True] * len(words)
    )


@pytest.mark.parametrize("make", [Doc, lambda rows, _: real(rows)], ids=["by hand", "spaCy's own"])
def test_nouns_attributes_counts_and_the_place_are_read(make):
    found = structure_of(make(RED_DOGS, CHUNKS["red dogs"]))
    place = Relation("dog", "on the left of", "coffee table")  # "the left" is a noun chunk, too, and no thing
    assert found == Structure(("dog", "coffee table"), ("red dog",), (("dog", 2),), place)


@pytest.mark.parametrize("make", [Doc, lambda rows, _: real(rows)], ids=["by hand", "spaCy's own"])
def test_an_attribute_may_be_said_of_the_noun_and_pronouns_are_no_things(make):
    assert structure_of(make(CUP_IS_RED, CHUNKS["cup"])) == Structure(("cup",), ("red cup",))


def test_without_a_noun_there_is_no_structure():
    assert structure_of(Doc([("joyfully", "joyfully", "ADV", "ROOT", 0)], [])) is None


def test_the_parser_is_named_by_its_model_and_leaves_out_the_opening():
    class Pipeline:
        meta = {"lang": "en", "name": "core_web_sm", "version": "3.8.0"}

        def pipe(self, texts):
            self.texts = list(texts)
            return [Doc(CUP_IS_RED, CHUNKS["cup"]) for _ in self.texts]

    pipeline = Pipeline()
    parser = SpacyParser(pipeline)
    assert parser.name == "spacy:en_core_web_sm-3.8.0"
    assert parser(["A photo of a cup"]) == [Structure(("cup",), ("red cup",))] and pipeline.texts == ["a cup"]


def test_an_absent_spacy_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "spacy", None)
    with pytest.raises(UserError, match="pip install spacy"):
        SpacyParser()
