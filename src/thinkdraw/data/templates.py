"""Prompts from templates and word lists.

In the styles of GenEval's six tasks and of T2I-CompBench's categories.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from thinkdraw.data.demands import Demand, ObjectDemand, clauses, questions
from thinkdraw.data.structure.words import (
    COLORS,
    GENEVAL_RELATIONS,
    GROUPS,
    MADE,
    MATERIALS,
    MORE_COLORS,
    NUMBERS,
    SHAPEABLE,
    SHAPES,
    TEXTURES,
    WORDINGS,
)
from thinkdraw.errors import UserError
from thinkdraw.types import Prompt

GENEVAL_TASKS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
COMPBENCH_TASKS = ("color", "shape", "texture", "spatial", "numeracy", "complex")
OPENINGS = ("{}", "{}", "{}", "a picture of {}", "an image of {}")


@dataclass(frozen=True)
class Vocabulary:
    """Nouns to draw from: all, those of any material, those of any outline."""

    nouns: tuple[str, ...]
    made: tuple[str, ...]
    shapeable: tuple[str, ...]

    @staticmethod
    def of(groups: Sequence[str]) -> "Vocabulary":
        """Take the nouns of some of `GROUPS`, all if none is named."""
        chosen = [name for name in GROUPS if name in groups or not groups]
        pick = lambda names: tuple(noun for name in chosen if name in names for noun in GROUPS[name])  # noqa: E731
        return Vocabulary(pick(GROUPS), pick(MADE), pick(SHAPEABLE))


def draw_one(rng: np.random.Generator, items: Sequence[str]) -> str:
    return items[int(rng.integers(len(items)))]


def draw_nouns(rng: np.random.Generator, nouns: Sequence[str], count: int) -> list[str]:
    """Draw different nouns that share no word: not a table and a coffee table.

    Raises UserError where the list has too few.
    """
    if len(nouns) < 8:
        raise UserError(
            f"the chosen groups hold {len(nouns)} objects that such a prompt can be about. Choose more groups."
        )
    while True:
        drawn = [nouns[int(i)] for i in rng.choice(len(nouns), size=count, replace=False)]
        words = [word for noun in drawn for word in noun.split()]
        if len(set(words)) == len(words):
            return drawn


def draw_attribute(rng: np.random.Generator, words: Sequence[str], noun: str, used: Sequence[str | None] = ()) -> str:
    """Draw a word that the noun does not have already, and none of `used`."""
    return draw_one(rng, [word for word in words if word not in noun.split() and word not in used])


def prompt_of_demand(text: str, task: str, demand: Demand) -> Prompt:
    include, exclude = clauses(demand)
    return Prompt(text, "", task, include, exclude, questions(demand))


def geneval_prompt(task: str, rng: np.random.Generator, words: Vocabulary) -> Prompt:
    """Draw a prompt of one of GenEval's tasks.

    "a photo of …", two to four of a kind, GenEval's ten colours and four relations.
    """
    a, b = draw_nouns(rng, words.nouns, 2)
    color = draw_attribute(rng, COLORS, a)
    match task:
        case "single_object":
            demand = Demand((ObjectDemand(a),))
        case "two_object":
            demand = Demand((ObjectDemand(a), ObjectDemand(b)))
        case "counting":
            demand = Demand((ObjectDemand(a, count=int(rng.integers(2, 5))),))
        case "colors":
            demand = Demand((ObjectDemand(a, color=color),))
        case "position":
            demand = Demand((ObjectDemand(a), ObjectDemand(b)), draw_one(rng, GENEVAL_RELATIONS))
            subject, target = demand.objects[1].counted(), demand.objects[0].counted()
            return prompt_of_demand(f"a photo of {subject} {demand.relation} {target}", task, demand)
        case "color_attr":
            demand = Demand(
                (ObjectDemand(a, color=color), ObjectDemand(b, color=draw_attribute(rng, COLORS, b, (color,))))
            )
        case _:
            raise ValueError(f"task={task!r}: one of {', '.join(GENEVAL_TASKS)}.")
    return prompt_of_demand("a photo of " + join_phrases(demand.objects), task, demand)


def compbench_prompt(task: str, rng: np.random.Generator, words: Vocabulary) -> Prompt:
    """Draw a prompt of one of T2I-CompBench's categories.

    Attributes bound to two objects, relations, numbers up to eight, or several of these.
    """
    match task:
        case "color":
            return _two_attributes(rng, task, words.nouns, "color", MORE_COLORS)
        case "shape":
            return _two_attributes(rng, task, words.shapeable, "shape", SHAPES)
        case "texture":
            return _two_attributes(rng, task, words.made, "texture", (*MATERIALS, *TEXTURES))
        case "spatial":
            a, b = draw_nouns(rng, words.nouns, 2)
            demand = Demand((ObjectDemand(a), ObjectDemand(b)), draw_one(rng, tuple(WORDINGS)))
            wording = draw_one(rng, WORDINGS[demand.relation or ""])
            if rng.random() < 0.25:
                text = f"The {b} is {wording} the {a}."
            else:
                text = draw_one(rng, OPENINGS).format(
                    f"{demand.objects[1].counted()} {wording} {demand.objects[0].counted()}"
                )
            return prompt_of_demand(text, task, demand)
        case "numeracy":
            nouns = draw_nouns(rng, words.nouns, int(rng.integers(1, 4)))
            counts = [int(rng.integers(2, max(NUMBERS) + 1)), *(int(rng.integers(1, 5)) for _ in nouns[1:])]
            demand = Demand(tuple(ObjectDemand(noun, count) for noun, count in zip(nouns, counts)))
            return prompt_of_demand(draw_one(rng, OPENINGS).format(join_phrases(demand.objects)), task, demand)
        case "complex":
            return _complex(rng, words)
    raise ValueError(f"task={task!r}: one of {', '.join(COMPBENCH_TASKS)}.")


def _two_attributes(
    rng: np.random.Generator, task: str, nouns: Sequence[str], kind: str, values: Sequence[str]
) -> Prompt:
    a, b = draw_nouns(rng, nouns, 2)
    first = draw_attribute(rng, values, a)
    second = draw_attribute(rng, values, b, (first,))
    demand = Demand((replace(ObjectDemand(a), **{kind: first}), replace(ObjectDemand(b), **{kind: second})))
    if rng.random() < 0.25:
        say = [f"the {noun} is {MATERIALS.get(word, word)}" for noun, word in ((a, first), (b, second))]
        return prompt_of_demand(f"T{say[0][1:]} and {say[1]}.", task, demand)
    return prompt_of_demand(draw_one(rng, OPENINGS).format(join_phrases(demand.objects)), task, demand)


def _complex(rng: np.random.Generator, words: Vocabulary) -> Prompt:
    """Relate a coloured object of some texture to another coloured one.

    In half of the prompts a third kind is added, counted.
    """
    a, b = draw_nouns(rng, words.made, 2)
    color = draw_attribute(rng, MORE_COLORS, a)
    target = ObjectDemand(a, color=color, texture=draw_attribute(rng, (*MATERIALS, *TEXTURES), a))
    subject = ObjectDemand(b, color=draw_attribute(rng, MORE_COLORS, b, (color,)))
    relation = draw_one(rng, tuple(WORDINGS))
    wording = draw_one(rng, WORDINGS[relation])
    objects = [target, subject]
    if rng.random() < 0.5:
        taken = {*a.split(), *b.split()}
        free = [noun for noun in words.nouns if not taken & set(noun.split())]
        objects.append(ObjectDemand(draw_one(rng, free), count=int(rng.integers(2, 5))))
        text = f"{subject.counted()} {wording} {target.counted()}, and {objects[2].counted()}"
    else:
        text = f"The {subject.phrase()} is {wording} the {target.phrase()}."
    return prompt_of_demand(text, "complex", Demand(tuple(objects), relation))


def join_phrases(objects: Sequence[ObjectDemand]) -> str:
    """Join phrases: 'a dog', 'a dog and two cats', 'a dog, two cats and an owl'."""
    counted = [thing.counted() for thing in objects]
    return " and ".join([", ".join(counted[:-1]), counted[-1]] if len(counted) > 1 else counted)
