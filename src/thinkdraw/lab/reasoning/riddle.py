"""A riddle: a prompt that says what to draw in words that have to be worked out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from thinkdraw.lab.reasoning.derivation import Derivation
from thinkdraw.lab.reasoning.terms import Term, Words, named
from thinkdraw.lab.scenes import Scene
from thinkdraw.lab.shapes import PLURALS
from thinkdraw.lab.specs import ObjectSpec, Spec, satisfies, scene_for
from thinkdraw.lab.wording import HELD_OUT_OPENINGS, SENTENCES, article

MAX_OBJECTS = 5


@dataclass(frozen=True)
class ObjectTerm:
    """One kind of object as a riddle says it. None leaves an attribute open."""

    shape: Term[str]
    color: Term[str] | None = None
    size: Term[str] | None = None
    count: Term[int] | None = None

    @property
    def terms(self) -> list[Term]:
        """Those that are said, in the order in which they are worked out."""
        return [term for term in (self.shape, self.count, self.color, self.size) if term is not None]

    def text(self, words: Words) -> str:
        """Write it: values before the noun, what has to be worked out behind it."""
        shape = self.shape.text(words)
        said = [(term.steps, term.text(words)) for term in (self.size, self.color) if term is not None]
        before = [text for steps, text in said if text and not steps]
        behind = " and ".join(text for steps, text in said if text and steps)
        if self.shape.steps:  # "what tea is drunk from, large and red"
            return ", ".join(text for text in (shape, " and ".join(before), behind) if text)
        if self.count is not None and self.count.steps:  # its text has the noun
            noun = self.count.text(words).replace(PLURALS[shape], " ".join([*before, PLURALS[shape]]), 1)
        elif self.count is not None and self.count.text(words) != "one":
            noun = " ".join([self.count.text(words), *before, PLURALS[shape]])
        else:
            phrase = " ".join([*before, shape])
            noun = f"one {phrase}" if self.count is not None else article(phrase)
        return f"{noun} {behind}" if behind else noun

    def solve(self, derivation: Derivation, objects: Sequence[ObjectSpec]) -> ObjectSpec:
        shape = self.shape.work(derivation, objects, "")
        thing = ObjectSpec(shape)
        if self.count is not None:
            # A number that a riddle is about is exact, one included.
            thing = replace(thing, count=self.count.work(derivation, objects, named(thing)), exact=True)
        if self.color is not None:
            thing = replace(thing, color=self.color.work(derivation, objects, named(thing)))
        if self.size is not None:
            thing = replace(thing, size=self.size.work(derivation, objects, named(thing)))
        return thing


@dataclass(frozen=True)
class Tail:
    """What a riddle says of all its objects together, and what follows from it.

    work: (derivation, objects) → objects and relations of the scene. steps: inferences that it takes.
    is_closed: whether it speaks of all objects, so that none may be added.
    """

    text: Callable[[Words], str]
    work: Callable[[Derivation, Sequence[ObjectSpec]], tuple[Sequence[ObjectSpec], tuple[tuple[int, str, int], ...]]]
    steps: int = 0
    is_closed: bool = False


@dataclass(frozen=True)
class Riddle:
    """A riddle. kind: one of `kinds.KINDS`; what else its objects ask for is in `mix`."""

    kind: str
    objects: tuple[ObjectTerm, ...]
    tail: Tail | None = None

    @property
    def steps(self) -> int:
        """Number of inferences."""
        tail = self.tail.steps if self.tail is not None else 0
        return tail + sum(term.steps for thing in self.objects for term in thing.terms)

    @property
    def mix(self) -> frozenset[str]:
        """Kinds of all its inferences."""
        return frozenset({self.kind} | {term.kind for o in self.objects for term in o.terms if term.steps})

    def text(self, words: Words, opening: str = "{}") -> str:
        phrases = [thing.text(words) for thing in self.objects]
        listed = ", ".join(phrases[:-1]) + (" and " if len(phrases) > 1 else "") + phrases[-1]
        tail = self.tail.text(words) if self.tail is not None else ""
        return opening.format(listed) + (f", {tail}" if tail else "")

    def key(self) -> str:
        """Return its canonical text: equal for riddles that differ in wording alone."""
        return self.text(Words())

    def text_with_held_out_words(self) -> str:
        """Return it in held-out wordings, where its terms have some."""
        return self.text(Words(held_out=True))

    def prompt_text(self, rng: np.random.Generator, held_out_words: bool = False) -> str:
        """Write it as a prompt."""
        openings = HELD_OUT_OPENINGS if held_out_words else SENTENCES
        return self.text(Words(rng, held_out_words), openings[rng.integers(len(openings))])

    def solve(self, derivation: Derivation | None = None) -> Spec:
        """Work the riddle out. Raises ValueError for a wrong step that leads to no scene."""
        derivation = derivation or Derivation()
        objects: list[ObjectSpec] = []
        for thing in self.objects:
            objects.append(thing.solve(derivation, objects))
        relations: tuple[tuple[int, str, int], ...] = ()
        if self.tail is not None:
            changed, relations = self.tail.work(derivation, objects)
            objects = list(changed)
        total = sum(thing.count for thing in objects)
        if total > MAX_OBJECTS or min(thing.count for thing in objects) < 1:
            raise ValueError(f"{total} objects: a scene has one to {MAX_OBJECTS}.")
        if len({thing.shape for thing in objects}) < len(objects):
            raise ValueError("two kinds of objects have one shape.")
        return Spec(tuple(objects), relations)

    def derivation(self) -> tuple[str, ...]:
        """Return the sentences that lead to the scene."""
        derivation = Derivation()
        self.solve(derivation)
        return tuple(derivation.sentences)

    def wrong(self, rng: np.random.Generator) -> tuple[Scene, tuple[str, ...]]:
        """Draw a scene that one wrong inference leads to, with that derivation."""
        truth = self.solve()
        for _ in range(200):
            derivation = Derivation(int(rng.integers(self.steps)), rng)
            try:
                spec = self.solve(derivation)
                scene = scene_for(spec, rng) if spec.key() != truth.key() else None
            except (ValueError, StopIteration):  # no such scene
                continue
            if scene is not None and not satisfies(truth, scene):
                return scene, tuple(derivation.sentences)
        raise AssertionError(f"no wrong step changes the scene of {self.key()!r}")
