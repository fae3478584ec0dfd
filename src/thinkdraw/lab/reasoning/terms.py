"""Terms of a riddle: an attribute in other words, and how it is worked out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from thinkdraw.lab.reasoning.derivation import Derivation
from thinkdraw.lab.reasoning.knowledge import ARE, COLOR_OF, SHAPE_OF
from thinkdraw.lab.scenes import COLORS
from thinkdraw.lab.shapes import PLURALS, SHAPES, SIZES
from thinkdraw.lab.specs import ObjectSpec
from thinkdraw.lab.wording import NUMBERS

Value = TypeVar("Value")
COLOR_NAMES = tuple(COLORS)
COUNTS = (1, 2, 3, 4)

# Wordings in training; the held-out ones occur in the out-of-domain split alone. The first is the canonical one.
WORDINGS: Mapping[str, tuple[str, ...]] = {
    "knowledge": ("in the color of {thing}", "colored like {thing}"),
    "color of": ("in the color of the {other}", "of the same color as the {other}"),
    "size of": ("in the size of the {other}", "as large or small as the {other}"),
    "other size": ("in the other size than the {other}", "not in the size of the {other}"),
    "exclusion": ("in {a}, {b} or {c} but neither {x} nor {y}", "in {a}, {b} or {c} but not in {x} and not in {y}"),
    "twice": ("twice as many {many} as {few}", "two {many} for each of the {few}"),
    "one more": ("one more of {many} than of {few}", "{many}, one more than {few}"),
    "one fewer": ("one fewer of {many} than of {few}", "{many}, one fewer than {few}"),
    "as many": ("as many {many} as {few}", "{many} in the number of {few}"),
    "rainbow": ("with the colors of the rainbow from {color} on", "colored along the rainbow from {color} on"),
    "turns": ("with colors that take turns, {a} then {b}", "colored by turns {a} and {b}"),
    "swap": ("with their colors swapped", "but each has the color of the other"),
    "mirror": ("seen in a mirror", "mirrored"),
    "upside down": ("upside down", "stood on its head"),
    "comparisons": ("{first} and {second}", "{first} while {second}"),
}
HELD_OUT_WORDINGS: Mapping[str, str] = {
    "knowledge": "with the color that {thing} has",
    "color of": "sharing the color of the {other}",
    "size of": "sharing the size of the {other}",
    "other size": "with the size that the {other} has not",
    "exclusion": "in one of {a}, {b} and {c}, with {x} and {y} left out",
    "twice": "{many} at double the number of {few}",
    "one more": "{many} ahead of {few} by one",
    "one fewer": "{many} behind {few} by one",
    "as many": "{many} equal in number to {few}",
    "rainbow": "whose colors follow the rainbow, beginning with {color}",
    "turns": "whose colors alternate between {a} and {b}",
    "swap": "after they exchange colors",
    "mirror": "with left and right exchanged",
    "upside down": "with top and bottom exchanged",
    "comparisons": "given that {first} and that {second}",
}


@dataclass(frozen=True)
class Words:
    """Chooses among wordings: the canonical one (no rng), one at random, or held out."""

    rng: np.random.Generator | None = None
    held_out: bool = False

    def say(self, name: str, **parts: str) -> str:
        if self.held_out:
            return HELD_OUT_WORDINGS[name].format(**parts)
        wordings = WORDINGS[name]
        return wordings[self.rng.integers(len(wordings)) if self.rng is not None else 0].format(**parts)


@dataclass(frozen=True)
class Term(Generic[Value]):
    """What a riddle says of an attribute, and how it is worked out.

    text: the words, which stand before the noun if they are the value itself (steps 0), else behind it.
    steps: inferences that it takes. kind: of these inferences.
    work: (derivation, objects so far, name of this object) → value.
    """

    text: Callable[[Words], str]
    work: Callable[[Derivation, Sequence[ObjectSpec], str], Value]
    steps: int = 0
    kind: str = ""


def given(value: Value, text: str) -> Term[Value]:
    """Say the value itself."""
    return Term(lambda words: text, lambda derivation, objects, name: value)


def color_of_thing(thing: str) -> Term[str]:
    """Ask for the colour that a thing has in the world: "in the color of grass"."""

    def work(derivation: Derivation, objects: Sequence[ObjectSpec], name: str) -> str:
        verb = "are" if thing in ARE else "is"
        return derivation.infer(f"{thing} {verb} {{value}}", f"{name} {{value}}", COLOR_OF[thing], COLOR_NAMES)

    return Term(lambda words: words.say("knowledge", thing=thing), work, 1, "knowledge")


def color_of_object(index: int, shape: str) -> Term[str]:
    """Ask for the colour of an object that was named before."""

    def work(derivation: Derivation, objects: Sequence[ObjectSpec], name: str) -> str:
        color = str(objects[index].color)
        return derivation.infer(f"{named(objects[index])} {color}", f"{name} {{value}}", color, COLOR_NAMES)

    return Term(lambda words: words.say("color of", other=shape), work, 1, "reference")


def size_of_object(index: int, shape: str, same: bool) -> Term[str]:
    """Ask for the size of an object that was named before, or for the other size."""

    def work(derivation: Derivation, objects: Sequence[ObjectSpec], name: str) -> str:
        size = str(objects[index].size)
        value = size if same else next(other for other in SIZES if other != size)
        return derivation.infer(f"{named(objects[index])} {size}", f"{name} {{value}}", value, SIZES)

    return Term(lambda words: words.say("size of" if same else "other size", other=shape), work, 1, "reference")


def color_by_exclusion(options: Sequence[str], out: Sequence[str], thing: str | None = None) -> Term[str]:
    """Ask for the one of three colours that is neither of two.

    thing: the second of `out` is said as the colour of this thing, which takes a second inference.
    """
    a, b, c = options
    x, y = out[0], out[1] if thing is None else f"the color of {thing}"

    def work(derivation: Derivation, objects: Sequence[ObjectSpec], name: str) -> str:
        second = out[1]
        if thing is not None:
            verb = "are" if thing in ARE else "is"
            second = derivation.infer(f"{thing} {verb} {{value}}", "{value} is out", out[1], COLOR_NAMES)
        value = next(color for color in options if color not in (out[0], second))
        return derivation.infer(f"{out[0]} and {second} are out", f"{name} {{value}}", value, COLOR_NAMES)

    return Term(
        lambda words: words.say("exclusion", a=a, b=b, c=c, x=x, y=y), work, 1 + (thing is not None), "exclusion"
    )


def color_after(index: int, options: Sequence[str]) -> Term[str]:
    """Ask for the colour that follows that of an object, in a sequence of colours."""

    def work(derivation: Derivation, objects: Sequence[ObjectSpec], name: str) -> str:
        before = str(objects[index].color)
        after = options[(options.index(before) + 1) % len(options)] if before in options else options[0]
        return derivation.infer(f"after {before} comes {{value}}", f"{name} {{value}}", after, COLOR_NAMES)

    return Term(lambda words: "", work, 1, "sequence")


def shape_by_definition(definition: str) -> Term[str]:
    """Ask for a shape by what it is: "what tea is drunk from"."""

    def work(derivation: Derivation, objects: Sequence[ObjectSpec], name: str) -> str:
        return derivation.infer(
            f"{definition} is called {{value}}", "there is one {value}", SHAPE_OF[definition], SHAPES
        )

    return Term(lambda words: definition, work, 1, "definition")


RULES: Mapping[str, Callable[[int], int]] = {
    "twice": lambda count: 2 * count,
    "one more": lambda count: count + 1,
    "one fewer": lambda count: count - 1,
    "as many": lambda count: count,
}
_ARITHMETIC = {
    "twice": "twice {few} is {value}",
    "one more": "{few} and one is {value}",
    "one fewer": "{few} less one is {value}",
    "as many": "as many as {few} is {value}",
}


def count_by_rule(rule: str, index: int, shape: str, counted: str) -> Term[int]:
    """Ask for a number by that of an object: "twice as many hearts as squares".

    rule: a key of RULES.
    """

    def work(derivation: Derivation, objects: Sequence[ObjectSpec], name: str) -> int:
        few = objects[index].count
        if RULES[rule](few) not in COUNTS:  # only after a wrong step
            raise ValueError(f"{rule} of {few}: a scene has one to {COUNTS[-1]} of a kind.")
        premise = _ARITHMETIC[rule].format(few=NUMBERS[few], value="{value}")
        return derivation.infer(
            premise, f"the number of {PLURALS[shape]} is {{value}}", RULES[rule](few), COUNTS, NUMBERS.__getitem__
        )

    return Term(lambda words: words.say(rule, many=PLURALS[shape], few=PLURALS[counted]), work, 1, "count")


def named(thing: ObjectSpec) -> str:
    """Write an object as a subject with its verb: "the ring is", "the hearts are"."""
    return f"the {thing.shape} is" if thing.count == 1 else f"the {PLURALS[thing.shape]} are"
