"""Prompts: texts to draw, with the facts that judges check in the picture."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Question:
    """A yes/no question about a picture, in DPG's form.

    fact: what the lab's detector checks to answer it, or None.
    depends_on: ids of questions that must be answered yes first.
    category: DPG's broad category ("entity", "attribute", …), or "".
    """

    id: int
    text: str
    depends_on: tuple[int, ...] = ()
    fact: dict[str, Any] | None = None
    category: str = ""


@dataclass(frozen=True)
class Relation:
    """The place of `subject` relative to `object`.

    word: "left of", "on top of", "next to", …, as the prompt words it.
    """

    subject: str
    word: str
    object: str


@dataclass(frozen=True)
class Prompt:
    """A text to draw, with the facts to check its picture for.

    Facts have the form of the benchmark or paper that checks them.
    tag: the task it belongs to.
    include, exclude: GenEval's clauses ({"class", "count", optional "color", "position"}).
    questions: DPG-Bench's.
    nouns, attributed ("red dog", singular), counts (noun, number), relation: T2I-R1's.
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
        """Build GenEval's metadata record."""
        record: dict[str, Any] = {"tag": self.tag, "include": list(self.include), "prompt": self.text}
        if self.exclude:
            record["exclude"] = list(self.exclude)
        return record
