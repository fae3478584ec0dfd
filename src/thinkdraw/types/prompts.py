"""Prompts: a text to draw, with the facts that judges and benchmarks check a picture for, where they are known."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Question:
    """A yes/no question about a picture (DPG's form).

    fact: what the lab's detector checks for it, or None. depends_on: ids of questions that must be answered yes first.
    category: DPG's broad category ("entity", "attribute", …), "" where there is none.
    """

    id: int
    text: str
    depends_on: tuple[int, ...] = ()
    fact: dict[str, Any] | None = None
    category: str = ""


@dataclass(frozen=True)
class Relation:
    """Where `subject` is as seen from `object`; word: "left of", "on top of", "next to", …, as the prompt says it."""

    subject: str
    word: str
    object: str


@dataclass(frozen=True)
class Prompt:
    """A text to draw, with the facts to check a picture for, in the form of the benchmark or paper that checks them.

    tag: the task it belongs to. include, exclude: GenEval's clauses ({"class", "count", optional "color", "position"}).
    questions: DPG-Bench's. nouns, attributed ("red dog", singular), counts (noun, number), relation: T2I-R1's.
    """

    text: str
    id: str = ""
    tag: str = ""
    include: tuple[dict[str, Any], ...] = ()
    exclude: tuple[dict[str, Any], ...] = ()
    questions: tuple[Question, ...] = ()
    nouns: tuple[str, ...] = ()
    attributed: tuple[str, ...] = ()
    counts: tuple[tuple[str, int], ...] = ()
    relation: Relation | None = None

    def metadata(self) -> dict[str, Any]:
        """GenEval's metadata record."""
        record: dict[str, Any] = {"tag": self.tag, "include": list(self.include), "prompt": self.text}
        if self.exclude:
            record["exclude"] = list(self.exclude)
        return record
