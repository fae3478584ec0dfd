"""The leak guard: finds training prompts that are a test prompt in other words.

Three rules; the first that matches is the reason. 1. The texts are equal after normalisation. 2. The clauses are the same, with the
same nouns and attributes. 3. Both have at least 20 words, and share at least 0.8 of their word triples (`find_near_copies`). Short
prompts are excluded there, because those of one template share most triples and are still different.
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
# Each relation and its opposite: clauses are compared after replacing the left one by the right one.
_INVERSE = {"right of": "left of", "below": "above", "behind": "in front of"}
_SYMMETRIC = {"next to", "near"}


class LeakConfig(StrictModel):
    """Which prompts are looked for in which test sets."""

    train: Path = Field(description="Prompts to train on: a prompt file, or a folder with one.")
    against: list[Path] = Field(
        default=[], description="Test sets whose prompts must not be among them, besides the published benchmarks'."
    )


@dataclass(frozen=True)
class Leak:
    """Training prompt number `train` is test prompt number `test`.

    reason: which rule says so.
    """

    train: int
    test: int
    reason: str


def normalise(text: str) -> str:
    """Lower the case; remove punctuation, articles and double blanks.

    A hyphen separates words, an apostrophe does not. A text of nothing but these stays as it is.
    """
    plain = re.sub(r"['’`]", "", unicodedata.normalize("NFKC", text).casefold())
    words = re.sub(r"[\W_]+", " ", plain).split()
    return " ".join(word for word in words if word not in ("a", "an", "the")) or plain.strip()


def text_key(text: str) -> Hashable:
    """Return a key that is equal for texts that are the same after normalisation.

    "a photo of" makes no difference, nor does the order around a single "and".
    """
    bare = _CARRIER.sub("", normalise(text))
    return tuple(sorted(bare.split(" and "))) if bare.count(" and ") == 1 else bare


def clause_key(prompt: Prompt) -> Hashable | None:
    """Return a key that is equal for prompts whose clauses demand the same.

    Their order does not matter. None without clauses. A relation is the same when it is said from the other side: a left of b, b right
    of a.
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
    """Return at most one leak per training prompt, in their order.

    Each names the first test prompt that the training prompt repeats.
    """
    if not test:
        return []
    texts: dict[Hashable, int] = {}
    clauses: dict[Hashable, int] = {}
    for index, prompt in enumerate(test):
        texts.setdefault(text_key(prompt.text), index)
        if (key := clause_key(prompt)) is not None:
            clauses.setdefault(key, index)
    leaks: dict[int, Leak] = {}
    for index, prompt in enumerate(train):
        if (same := texts.get(text_key(prompt.text))) is not None:
            leaks[index] = Leak(index, same, SAME_TEXT)
        elif clauses and (same := clauses.get(clause_key(prompt))) is not None:
            leaks[index] = Leak(index, same, SAME_CLAUSES)
    long_train = [i for i, p in enumerate(train) if i not in leaks and len(p.text.split()) >= MIN_WORDS]
    long_test = [i for i, p in enumerate(test) if len(p.text.split()) >= MIN_WORDS]
    copies = find_near_copies(
        [normalise(train[i].text) for i in long_train], [normalise(test[i].text) for i in long_test], MIN_JACCARD
    )
    for copy in copies:
        index = long_train[copy.left]
        leaks[index] = Leak(index, long_test[copy.right], f"{copy.jaccard:.2f} of the word triples shared")
    return [leaks[index] for index in sorted(leaks)]


def refuse_leaks(train: Sequence[Prompt], test: Sequence[Prompt], key: str = "prompts.leaks") -> None:
    """Raise UserError if any training prompt is a test prompt.

    key: the configuration key that is the way out.
    """
    leaks = find_leaks(train, test)
    if not leaks:
        return
    shown = "; ".join(
        f"{train[leak.train].text[:80]!r} is test prompt {leak.test} ({leak.reason})" for leak in leaks[:3]
    )
    raise UserError(
        f"{len(leaks)} of {len(train)} training prompts are test prompts: {shown}{'; …' if len(leaks) > 3 else ''}. "
        f"Leave them out with {key}: drop, or choose other prompts."
    )
