"""Rewrites ask for the same picture: what they say has the spec that the prompt has."""

import itertools

import numpy as np
import pytest

from thinkdraw.data.rewrites import INVERSE, rewrites
from thinkdraw.lab.prompts import make_example, prompt_text, stream
from thinkdraw.lab.specs import OPPOSITE, RELATIONS, ObjectSpec, Spec
from thinkdraw.types import Prompt

CUP, RING = ObjectSpec("cup", "red", "small", "striped"), ObjectSpec("ring", count=2)


def prompt(text, *include):
    return Prompt(text, include=include)


@pytest.mark.parametrize("relation", RELATIONS)
def test_every_relation_is_inverted_with_its_things_swapped(relation):
    spec = Spec((CUP, ObjectSpec("star")), ((1, relation, 0),))
    made = make_example(spec, "geneval", "position", np.random.default_rng(0)).prompt
    assert made.text == f"a photo of a star {relation} a small striped red cup"
    assert rewrites(made) == (f"a photo of a small striped red cup {OPPOSITE[relation]} a star",)


@pytest.mark.parametrize("word", INVERSE)
def test_an_inverse_of_an_inverse_says_the_same(word):
    clauses = ({"class": "dog", "count": 1}, {"class": "cat", "count": 1})
    (once,) = rewrites(prompt(f"a dog {word} a cat", *clauses))
    assert once == f"a cat {INVERSE[word]} a dog"
    (twice,) = rewrites(prompt(once, *clauses))
    assert twice == f"a dog {'on top of' if word == 'over' else word} a cat"


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_every_order_of_a_list_is_found(order):
    things = ("a red cup", "two rings", "a star")
    include = (
        {"class": "cup", "count": 1, "color": "red"},
        {"class": "ring", "count": 2},
        {"class": "star", "count": 1},
    )
    a, b, c = (things[i] for i in order)
    found = rewrites(prompt(f"an image with {a}, {b} and {c} here", *include))
    orders = {f"an image with {x}, {y} and {z} here" for x, y, z in itertools.permutations(things)}
    assert {f"an image with {a}, {b} and {c} here", *found} == orders and len(found) == 5


def test_words_of_a_class_stay_together():
    include = ({"class": "computer keyboard", "count": 1, "color": "black"}, {"class": "bus", "count": 2})
    text = "a photo of a black computer keyboard and two buses"
    assert rewrites(prompt(text, *include)) == ("a photo of two buses and a black computer keyboard",)


@pytest.mark.parametrize(
    "text", ["a photo of a cup", "a cup that holds a ring", "cup and ring", "a ring and a ring in a cup"]
)
def test_what_the_structure_does_not_show_is_not_rewritten(text):
    include = ({"class": "cup", "count": 1}, {"class": "ring", "count": 1})
    assert rewrites(prompt(text, *include)) == ()


def retold(spec: Spec) -> list[Spec]:
    """The spec with its things in every order and each relation either way round."""
    out = []
    for order in itertools.permutations(range(len(spec.objects))):
        place = {old: new for new, old in enumerate(order)}
        things = tuple(spec.objects[i] for i in order)
        straight = tuple((place[i], relation, place[j]) for i, relation, j in spec.relations)
        inverted = tuple((j, OPPOSITE[relation], i) for i, relation, j in straight)
        out += [Spec(things, relations, spec.background) for relations in (straight, inverted)]
    return out


@pytest.mark.parametrize("family", ["geneval", "compbench", "dense"])
def test_rewrites_of_the_lab_are_what_it_says_of_the_same_spec_retold(family):
    examples, seen = stream(family, "train", 0), 0
    for made in itertools.islice(examples, 24):
        found = rewrites(made.prompt)
        said = {
            prompt_text(spec, family, np.random.default_rng(k))
            for spec in retold(made.spec)
            for k in range(60 if found else 0)
        }
        assert made.prompt.text not in found and set(found) <= said
        assert all(spec.key() == made.spec.key() for spec in retold(made.spec))
        seen += bool(found)
    assert seen >= 8
