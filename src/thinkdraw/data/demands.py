"""What a generated prompt demands, apart from its words.

It is a list of objects with their attributes, and perhaps a relation between the first two.
"""

from dataclasses import dataclass

from thinkdraw.data.structure.words import GENEVAL_RELATIONS, MATERIALS, NUMBERS, article, plural
from thinkdraw.runtime.json_types import JsonObject
from thinkdraw.types import Question


@dataclass(frozen=True)
class ObjectDemand:
    """One demanded object.

    count > 1 demands exactly that many. texture: a word of `TEXTURES` or `MATERIALS`.
    """

    noun: str
    count: int = 1
    color: str | None = None
    texture: str | None = None
    shape: str | None = None

    def phrase(self) -> str:
        """Write attributes and noun in English order: surface, shape, colour, material."""
        made = self.texture in MATERIALS
        words = (None if made else self.texture, self.shape, self.color, self.texture if made else None)
        noun = self.noun if self.count == 1 else plural(self.noun)
        return " ".join([*(word for word in words if word), noun])

    def counted(self) -> str:
        """Write the phrase with its count: 'a red dog', 'three striped chairs'."""
        return article(self.phrase()) if self.count == 1 else f"{NUMBERS[self.count]} {self.phrase()}"


@dataclass(frozen=True)
class Demand:
    """What a prompt demands.

    relation: of the second object to the first (GenEval names the target first).
    """

    objects: tuple[ObjectDemand, ...]
    relation: str | None = None


def clauses(demand: Demand) -> tuple[tuple[JsonObject, ...], tuple[JsonObject, ...]]:
    """Return GenEval's include and exclude clauses.

    GenEval's rules do not read the keys `texture`, `shape` and `relation`. `relation` takes the place of `position` for relations that
    they do not know.
    """
    include: list[JsonObject] = []
    for index, thing in enumerate(demand.objects):
        clause: JsonObject = {"class": thing.noun, "count": thing.count}
        clause |= {k: v for k in ("color", "texture", "shape") if (v := getattr(thing, k))}
        if index == 1 and demand.relation:
            clause["position" if demand.relation in GENEVAL_RELATIONS else "relation"] = [demand.relation, 0]
        include.append(clause)
    exclude = tuple({"class": t.noun, "count": t.count + 1} for t in demand.objects if t.count > 1)
    return tuple(include), exclude


def questions(demand: Demand) -> tuple[Question, ...]:
    """Return questions in DPG's form, ids from 1.

    The first asks whether an object exists; on it depend how many there are, which colour, texture and shape, and where.
    """
    out: list[Question] = []

    def ask(text: str, *depends_on: int) -> int:
        out.append(Question(len(out) + 1, text, depends_on))
        return len(out)

    exists = []
    for thing in demand.objects:
        is_single = thing.count == 1
        noun = thing.noun if is_single else plural(thing.noun)
        there = ask(f"is there {article(noun)}?" if is_single else f"are there any {noun}?")
        exists.append(there)
        if not is_single:
            ask(f"are there exactly {NUMBERS[thing.count]} {noun}?", there)
        for word in (thing.color, thing.texture, thing.shape):
            if word:
                ask(f"{'is' if is_single else 'are'} the {noun} {MATERIALS.get(word, word)}?", there)
    if demand.relation:
        target, subject = (t.noun if t.count == 1 else plural(t.noun) for t in demand.objects[:2])
        verb = "is" if demand.objects[1].count == 1 else "are"
        ask(f"{verb} the {subject} {demand.relation} the {target}?", exists[0], exists[1])
    return tuple(out)
