"""The leak guard: which training prompts are a test prompt, in the same or nearly the same words.

Three rules, the first that fires is the reason: equal texts after normalisation; the same clauses with the same nouns and
attributes; and, between prompts of 20 words or more only, at least 0.8 of the word triples shared (short prompts of one template
share most of theirs and are still different). `find_near_copies` finds the last.
"""

import re
import unicodedata
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from thinkdraw.config import StrictModel
from thinkdraw.data.near_copies import find_near_copies
from thinkdraw.errors import UserError
from thinkdraw.runtime.json_types import JsonMapping
from thinkdraw.types import Prompt

SAME_TEXT = "equal after normalisation"
SAME_CLAUSES = "the same clauses"
MIN_WORDS = 20
MIN_JACCARD = 0.8

_CARRIER = re.compile(r"^(?:(?:photo|photograph|picture|image) (?:of|with) |there (?:is|are) )")
# Two ways to say one thing: clauses are compared with the relation on the right.
_INVERSE = {"right of": "left of", "below": "above", "behind": "in front of"}
_SYMMETRIC = {"next to", "near"}


class LeakConfig(StrictModel):
    """Which prompts are looked for in which test sets."""

    train: Path = Field(description="The prompts to train on: a prompt file, or a folder with one.")
    against: list[Path] = Field(min_length=1, description="Test sets, whose prompts must not be among them.")


@dataclass(frozen=True)
class Leak:
    """Training prompt number `train` is test prompt number `test`; reason: which rule says so."""

    train: int
    test: int
    reason: str


def normalise(text: str) -> str:
    """Lower case, without punctuation, articles and doubled blanks; a hyphen separates words, an apostrophe does not.

    What consists of nothing else stays as it is.
    """
    plain = re.sub(r"['’`]", "", unicodedata.normalize("NFKC", text).casefold())
    words = re.sub(r"[\W_]+", " ", plain).split()
    return " ".join(word for word in words if word not in ("a", "an", "the")) or plain.strip()


def text_key(text: str) -> Hashable:
    """Equal for texts that are the same after normalisation, with or without "a photo of", their parts around "and" in any order."""
    bare = _CARRIER.sub("", normalise(text))
    return tuple(sorted(bare.split(" and "))) if bare.count(" and ") == 1 else bare


def clause_key(prompt: Prompt) -> Hashable | None:
    """Equal for prompts whose include and exclude clauses demand the same, in any order; None without clauses.

    A relation is the same when it is said from the other side: a left of b, b right of a.
    """
    if not prompt.include:
        return None
    things = [_thing(clause) for clause in prompt.include]
    relations = set()
    for thing, clause in zip(things, prompt.include):
        for name in ("position", "relation"):
            if name in clause:
                relation, index = clause[name]
                target = things[index] if index in range(len(things)) else index
                relations.add(_related(thing, normalise(relation), target))
    return frozenset(things), frozenset(relations), frozenset(_thing(clause) for clause in prompt.exclude)


def _thing(clause: JsonMapping) -> Hashable:
    return frozenset((k, normalise(str(v))) for k, v in clause.items() if k not in ("position", "relation"))


def _related(thing: Hashable, relation: str, target: Hashable) -> Hashable:
    if relation in _SYMMETRIC:
        return relation, frozenset((thing, target))
    return (_INVERSE[relation], target, thing) if relation in _INVERSE else (relation, thing, target)


def find_leaks(train: Sequence[Prompt], test: Sequence[Prompt]) -> list[Leak]:
    """At most one leak per training prompt, in their order, with the first test prompt that it repeats."""
    if not test:
        return []
    texts: dict[Hashable, int] = {}
    clauses: dict[Hashable, int] = {}
    for index, prompt in enumerate(test):
        texts.setdefault(text_key(prompt.text), index)
        if (key := clause_key(prompt)) is not None:
            clauses.setdefault(key, index)
    found: dict[int, Leak] = {}
    for index, prompt in enumerate(train):
        if (same := texts.get(text_key(prompt.text))) is not None:
            found[index] = Leak(index, same, SAME_TEXT)
        elif clauses and (same := clauses.get(clause_key(prompt))) is not None:
            found[index] = Leak(index, same, SAME_CLAUSES)
    long_train = [i for i, p in enumerate(train) if i not in found and len(p.text.split()) >= MIN_WORDS]
    long_test = [i for i, p in enumerate(test) if len(p.text.split()) >= MIN_WORDS]
    copies = find_near_copies(
        [normalise(train[i].text) for i in long_train], [normalise(test[i].text) for i in long_test], MIN_JACCARD
    )
    for copy in copies:
        index = long_train[copy.left]
        found[index] = Leak(index, long_test[copy.right], f"{copy.jaccard:.2f} of the word triples shared")
    return [found[index] for index in sorted(found)]


def refuse_leaks(train: Sequence[Prompt], test: Sequence[Prompt], key: str = "prompts.leaks") -> None:
    """Raise UserError if any training prompt is a test prompt. key: the configuration key that is the way out."""
    found = find_leaks(train, test)
    if not found:
        return
    shown = "; ".join(
        f"{train[leak.train].text[:80]!r} is test prompt {leak.test} ({leak.reason})" for leak in found[:3]
    )
    raise UserError(
        f"{len(found)} of {len(train)} training prompts are test prompts: {shown}{'; …' if len(found) > 3 else ''}. "
        f"Leave them out with {key}: drop, or choose other prompts."
    )
