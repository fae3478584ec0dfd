"""The kinds of riddles, and how one of a number of steps is made."""

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from thinkdraw.lab.reasoning.derivation import Derivation
from thinkdraw.lab.reasoning.knowledge import COLOR_OF, RAINBOW, SHAPE_OF
from thinkdraw.lab.reasoning.riddle import MAX_OBJECTS, ObjectTerm, Riddle, Tail
from thinkdraw.lab.reasoning.terms import (
    COLOR_NAMES,
    RULES,
    Term,
    Words,
    color_after,
    color_by_exclusion,
    color_of_object,
    color_of_thing,
    count_by_rule,
    given,
    shape_by_definition,
    size_of_object,
)
from thinkdraw.lab.shapes import SHAPES, SIZES
from thinkdraw.lab.specs import OPPOSITE, ObjectSpec
from thinkdraw.lab.wording import NUMBERS

Item = TypeVar("Item")
Relations = tuple[tuple[int, str, int], ...]
MIRRORS = {"left of": "mirror", "right of": "mirror", "above": "upside down", "below": "upside down"}
_TURNED = {"mirror": "in a mirror", "upside down": "upside down"}
MAX_KINDS = 3  # kinds of objects in a riddle


def _pick(rng: np.random.Generator, items: Sequence[Item]) -> Item:
    return items[int(rng.integers(len(items)))]


def _shapes(rng: np.random.Generator, count: int) -> list[str]:
    return [SHAPES[i] for i in rng.choice(len(SHAPES), size=count, replace=False)]


def _colors(rng: np.random.Generator, count: int) -> list[str]:
    return [COLOR_NAMES[i] for i in rng.choice(len(COLOR_NAMES), size=count, replace=False)]


def _thing(rng: np.random.Generator) -> str:
    return _pick(rng, tuple(COLOR_OF))


def _count(steps: int, rng: np.random.Generator) -> Riddle:
    """Ask for numbers by arithmetic: "one square and twice as many hearts as squares"."""
    while True:
        shapes = _shapes(rng, min(steps, 2) + 1)
        counts = [int(rng.integers(1, 4))]
        objects = [ObjectTerm(given(shapes[0], shapes[0]), count=given(counts[0], NUMBERS[counts[0]]))]
        for shape in shapes[1:]:
            rule, index = _pick(rng, tuple(RULES)), int(rng.integers(len(objects)))
            counts.append(RULES[rule](counts[index]))
            objects.append(ObjectTerm(given(shape, shape), count=count_by_rule(rule, index, shape, shapes[index])))
        # Below the most that a scene has room for: one more, by a wrong step, must be a scene too.
        if min(counts) >= 1 and max(counts) <= 4 and sum(counts) < MAX_OBJECTS:
            return Riddle("count", tuple(objects))


def _reference(steps: int, rng: np.random.Generator) -> Riddle:
    """Ask for attributes by reference: "a ring in the color of the circle"."""
    shapes = _shapes(rng, min(steps, 2) + 1)
    by_size = rng.random() < 0.3
    first = ObjectTerm(given(shapes[0], shapes[0]))
    objects = [replace(first, size=_word(SIZES, rng)) if by_size else replace(first, color=_word(COLOR_NAMES, rng))]
    for i, shape in enumerate(shapes[1:]):
        index = int(rng.integers(i + 1))
        thing = ObjectTerm(given(shape, shape))
        if by_size:
            thing = replace(thing, size=size_of_object(index, shapes[index], bool(rng.random() < 0.5)))
        else:
            thing = replace(thing, color=color_of_object(index, shapes[index]))
        objects.append(thing)
    return Riddle("reference", tuple(objects))


def _word(values: Sequence[str], rng: np.random.Generator) -> Term[str]:
    value = _pick(rng, values)
    return given(value, value)


def _knowledge(steps: int, rng: np.random.Generator) -> Riddle:
    """Ask for colours of things in the world: "a ring in the color of grass"."""
    shapes = _shapes(rng, min(steps, 2) if steps > 1 else int(rng.integers(1, 3)))
    known = [ObjectTerm(given(s, s), color=color_of_thing(_thing(rng))) for s in shapes[: min(steps, 2)]]
    return Riddle("knowledge", (*known, *(ObjectTerm(given(s, s)) for s in shapes[min(steps, 2) :])))


def _exclusion(steps: int, rng: np.random.Generator) -> Riddle:
    """Ask for the colour that is left: "in red, green or blue but not …"."""
    options = _colors(rng, 3)
    out = [options[i] for i in rng.choice(3, size=2, replace=False)]
    things = [thing for thing, color in COLOR_OF.items() if color == out[1]]
    shapes = _shapes(rng, int(rng.integers(1, 3)))
    term = color_by_exclusion(options, out, _pick(rng, things) if steps > 1 else None)
    return Riddle(
        "exclusion",
        (ObjectTerm(given(shapes[0], shapes[0]), color=term), *(ObjectTerm(given(s, s)) for s in shapes[1:])),
    )


def _definition(steps: int, rng: np.random.Generator) -> Riddle:
    """Ask for shapes by what they are: "what tea is drunk from"."""
    definitions = [d for d, s in SHAPE_OF.items()]
    chosen = [definitions[i] for i in rng.choice(len(definitions), size=2, replace=False)]
    objects = [ObjectTerm(shape_by_definition(d)) for d in chosen[: min(steps, 2)]]
    if len(objects) == 1 and rng.random() < 0.7:
        shape = SHAPE_OF[chosen[1]]
        objects.append(ObjectTerm(given(shape, shape), color=_word(COLOR_NAMES, rng)))
    elif len(objects) == 1:
        objects = [ObjectTerm(objects[0].shape, color=_word(COLOR_NAMES, rng))]
    return Riddle("definition", tuple(objects))


def _order(steps: int, rng: np.random.Generator) -> Riddle:
    """Ask for an order by two comparisons: "the cup is left of the ring and …"."""
    shapes = _shapes(rng, 3)
    relation = _pick(rng, ("left of", "above"))
    order = tuple(int(i) for i in rng.permutation(3))  # indices of objects, from left to right or from top to bottom
    premises = [(order[0], relation, order[1]), (order[1], relation, order[2])]
    if rng.random() < 0.5:
        premises.reverse()
    said = [(j, OPPOSITE[r], i) if rng.random() < 0.5 else (i, r, j) for i, r, j in premises]
    first_said, second_said = (f"the {shapes[i]} is {r} the {shapes[j]}" for i, r, j in said)

    def work(derivation: Derivation, objects: Sequence[ObjectSpec]) -> tuple[Sequence[ObjectSpec], Relations]:
        names = [thing.shape for thing in objects]
        first = "from left to right" if relation == "left of" else "from top to bottom"
        orders = tuple(itertools.permutations(range(3)))
        concluded = derivation.infer(
            " and ".join(f"the {names[i]} is {r} the {names[j]}" for i, r, j in premises),
            f"{first} come {{value}}", order, orders, lambda o: ", ".join(names[i] for i in o),
        )  # fmt: skip
        pairs = itertools.combinations(concluded, 2)
        return objects, tuple((i, relation, j) for i, j in pairs)

    return Riddle(
        "order",
        tuple(ObjectTerm(given(s, s)) for s in shapes),
        Tail(lambda words: words.say("comparisons", first=first_said, second=second_said), work, 1, True),
    )


def _mirror(steps: int, rng: np.random.Generator) -> Riddle:
    """Turn a scene round ("seen in a mirror"), or swap two colours."""
    shapes = _shapes(rng, 2)
    if steps > 1 and rng.random() < 0.5:
        return _swap(shapes, rng)
    relation = _pick(rng, tuple(MIRRORS))
    how = MIRRORS[relation]

    def work(derivation: Derivation, objects: Sequence[ObjectSpec]) -> tuple[Sequence[ObjectSpec], Relations]:
        a, b = objects[0].shape, objects[1].shape
        turned = derivation.infer(
            f"{_TURNED[how]} {relation} becomes {{value}}", f"the {a} is {{value}} the {b}", OPPOSITE[relation],
            (relation, OPPOSITE[relation]),
        )  # fmt: skip
        return objects, ((0, turned, 1),)

    def text(words: Words) -> str:
        return f"the {shapes[0]} {relation} the {shapes[1]}, {words.say(how)}"

    return Riddle("mirror", tuple(ObjectTerm(given(s, s)) for s in shapes), Tail(text, work, 1))


def _swap(shapes: Sequence[str], rng: np.random.Generator) -> Riddle:
    colors = _colors(rng, 2)

    def work(derivation: Derivation, objects: Sequence[ObjectSpec]) -> tuple[Sequence[ObjectSpec], Relations]:
        swapped = []
        for thing, partner in zip(objects, reversed(objects), strict=True):
            color = derivation.infer(
                f"the {partner.shape} had {partner.color}",
                f"the {thing.shape} is {{value}}",
                str(partner.color),
                COLOR_NAMES,
            )
            swapped.append(ObjectSpec(thing.shape, color, thing.size, thing.texture, thing.count, thing.exact))
        return swapped, ()

    objects = tuple(ObjectTerm(given(s, s), color=given(c, c)) for s, c in zip(shapes, colors, strict=True))
    return Riddle("mirror", objects, Tail(lambda words: words.say("swap"), work, 2, True))


def _sequence(steps: int, rng: np.random.Generator) -> Riddle:
    """Ask for colours that go on: in the order of the rainbow, or taking turns."""
    number = min(steps, 2) + 1
    shapes = _shapes(rng, number)
    if rng.random() < 0.5:
        start = int(rng.integers(len(RAINBOW) - number + 1))
        options, name, parts = list(RAINBOW), "rainbow", {"color": RAINBOW[start]}
    else:
        start, options, name = 0, _colors(rng, 2), "turns"
        parts = {"a": options[0], "b": options[1]}
    first = options[start]
    objects = [ObjectTerm(given(shapes[0], shapes[0]), color=given(first, ""))]
    objects += [ObjectTerm(given(s, s), color=color_after(i, options)) for i, s in enumerate(shapes[1:])]
    return Riddle(
        "sequence", tuple(objects), Tail(lambda words: words.say(name, **parts), lambda d, o: (o, ()), 0, True)
    )


KINDS: Mapping[str, Callable[[int, np.random.Generator], Riddle]] = {
    "count": _count,
    "reference": _reference,
    "knowledge": _knowledge,
    "order": _order,
    "exclusion": _exclusion,
    "mirror": _mirror,
    "sequence": _sequence,
    "definition": _definition,
}


def make_riddle(kind: str, steps: int, rng: np.random.Generator) -> Riddle | None:
    """Make a riddle of a kind with this many inferences.

    Inferences of other kinds fill up. None if the draw has no room for so many.
    """
    riddle = KINDS[kind](int(rng.integers(1, min(steps, 2) + 1)), rng)
    for _ in range(12):
        if riddle.steps >= steps:
            break
        riddle = _with_one_more(riddle, rng)
    return riddle if riddle.steps == steps else None


def _with_one_more(riddle: Riddle, rng: np.random.Generator) -> Riddle:
    """Add an inference, where the draw finds room.

    That is a colour that was open, a shape by definition, or one more object.
    """
    objects = list(riddle.objects)
    index = int(rng.integers(len(objects) + 1))
    if index == len(objects):
        used = {thing.shape.text(Words()) for thing in objects}
        free = [
            shape
            for shape in SHAPES
            if shape not in used and not any(d in used for d, s in SHAPE_OF.items() if s == shape)
        ]
        closed = (riddle.tail is not None and riddle.tail.is_closed) or any(
            thing.count is not None for thing in objects
        )
        if len(objects) == MAX_KINDS or closed:
            return riddle
        shape = _pick(rng, free)
        objects.append(ObjectTerm(given(shape, shape), _open_color(objects, rng)))
        return Riddle(riddle.kind, tuple(objects), riddle.tail)
    thing = objects[index]
    shape = thing.shape.text(Words())
    is_named_once = len(re.findall(rf"\b{shape}\b", riddle.key())) == 1
    if thing.color is None and not (thing.count is not None and thing.count.steps):
        objects[index] = replace(thing, color=_open_color(objects[:index], rng))
    elif not thing.shape.steps and thing.count is None and is_named_once:
        definition = next(d for d, s in SHAPE_OF.items() if s == shape)
        objects[index] = replace(thing, shape=shape_by_definition(definition))
    return Riddle(riddle.kind, tuple(objects), riddle.tail)


def _open_color(before: Sequence[ObjectTerm], rng: np.random.Generator) -> Term[str]:
    """Ask for a colour by knowledge, by exclusion, or by an object named before."""
    options = _colors(rng, 3)
    out = [options[i] for i in rng.choice(3, size=2, replace=False)]
    choices = [color_of_thing(_thing(rng)), color_by_exclusion(options, out)]
    colored = [i for i, thing in enumerate(before) if thing.color is not None and not thing.shape.steps]
    if colored:
        index = int(_pick(rng, colored))
        choices.append(color_of_object(index, before[index].shape.text(Words())))
    return _pick(rng, choices)
