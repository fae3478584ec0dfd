"""What T2I-CompBench++ reads off a prompt's words; each oddity of upstream's has a row."""

import pytest

from thinkdraw.benchmarks.compbench.words import (
    RELATIONS_2D,
    RELATIONS_3D,
    attribute_questions,
    counts_in_prompt,
    first_and_last_noun,
    nouns_around_prepositions,
    relation_in,
    without_adjectives,
)

OBJECTS = [("dog", "dogs"), ("sheep", "sheep"), ("knife", "knives"), ("hot dog", "hot dogs"), ("dog", "hounds")]


def tag(text, **pos):
    """Tokens of a sentence; part of speech by word, X for the others."""
    return [(word, pos.get(word, "X")) for word in text.split()]


@pytest.mark.parametrize(
    ("prompt", "word"),
    [
        ("a cat on side of a bed", "on side of"),
        ("a cat next to a bed", "next to"),
        ("a cat near a bed", "near"),
        ("a cat on the left of a bed", "on the left of"),
        ("a cat on the right of a bed", "on the right of"),
        ("a cat on the bottom of a bed", "on the bottom of"),
        ("a cat on the top of a bed", "on the top of"),
        ("a cat on top of a bed", "on top of"),
        ("a linear cat on the left of a bed", "near"),  # a substring, wherever it stands, and earlier in the list
        ("a cat next to a bed on side of a road", "on side of"),  # the list's order, not the prompt's
        ("a cat NEXT TO a bed", None),
        ("a cat above a bed", None),
    ],
)
def test_the_first_2d_relation_of_the_list_that_is_in_the_prompt(prompt, word):
    assert relation_in(prompt, RELATIONS_2D) == word


@pytest.mark.parametrize(
    ("prompt", "word"),
    [
        ("a dog in front of a desk", "in front of"),
        ("a dog behind a desk", "behind"),
        ("a dog hidden by a desk", "hidden"),
        ("a dog behind a desk in front of a wall", "in front of"),
        ("a dog on the left of a desk", None),
    ],
)
def test_the_first_3d_relation_of_the_list_that_is_in_the_prompt(prompt, word):
    assert relation_in(prompt, RELATIONS_3D) == word


def test_the_two_things_are_the_first_and_the_last_noun():
    nouns = dict.fromkeys(("giraffe", "left", "lamp"), "NOUN")
    assert first_and_last_noun(tag("a giraffe on the left of a lamp", **nouns)) == ("giraffe", "lamp")


def test_one_noun_is_both_things_and_no_noun_is_none():
    assert first_and_last_noun(tag("a lamp", lamp="NOUN")) == ("lamp", "lamp")
    assert first_and_last_noun(tag("Rome next to Paris", Rome="PROPN", Paris="PROPN")) is None


@pytest.mark.parametrize("word", ["girl", "boy", "man", "woman"])
def test_people_are_persons_to_the_detector(word):
    assert first_and_last_noun([(word, "NOUN"), ("near", "ADP"), ("boys", "NOUN")]) == ("person", "boys")


@pytest.mark.parametrize(
    ("text", "pos", "things"),
    [
        ("The red hat on top of the brown rack .", {"hat": "NOUN", "rack": "NOUN"}, ("hat", "rack")),
        ("the hat on bottom of the rack", {"hat": "NOUN", "rack": "NOUN"}, ("hat", "rack")),
        ("a girl on the left of a big dog", {"girl": "NOUN", "dog": "NOUN"}, ("person", "dog")),
        ("a cat on the right a dog", {"cat": "NOUN", "dog": "NOUN"}, ("cat", "dog")),
        ("a cat next to a dog", {"cat": "NOUN", "dog": "NOUN"}, ("cat", "dog")),
        ("a cat on side of a dog", {"cat": "NOUN", "dog": "NOUN"}, ("cat", "dog")),
        ("a cat near a dog", {"cat": "NOUN", "dog": "NOUN"}, ("cat", "dog")),
        # before: the nearest noun or name; after: the first noun, whatever names stand before it
        ("a cat of Rex next to Paris dog", {"cat": "NOUN", "Rex": "PROPN", "Paris": "PROPN", "dog": "NOUN"}, ("Rex", "dog")),
        # no noun after: the last word of the first run of names
        ("a cat near Eiffel Tower in Paris .", {"cat": "NOUN", "Eiffel": "PROPN", "Tower": "PROPN", "Paris": "PROPN"}, ("cat", "Tower")),
        # a name that ends the prompt is not found, so there is one thing only
        ("a cat near Paris", {"cat": "NOUN", "Paris": "PROPN"}, None),
        ("near a dog", {"dog": "NOUN"}, None),  # nothing before
        ("a cat near", {"cat": "NOUN"}, None),  # nothing after
        # two prepositions find four things, and only exactly two count
        ("a cat near a dog near a cow", {"cat": "NOUN", "dog": "NOUN", "cow": "NOUN"}, None),
        ("a cat on the top of a dog", {"cat": "NOUN", "dog": "NOUN"}, None),  # not in the list of prepositions
        ("a cat above a dog", {"cat": "NOUN", "dog": "NOUN"}, None),
    ],
)  # fmt: skip
def test_the_things_of_a_complex_prompt_stand_around_its_preposition(text, pos, things):
    assert nouns_around_prepositions(tag(text, **pos)) == things


def test_adjectives_are_left_out_and_the_rest_is_joined_by_blanks():
    tokens = [("The", "DET"), ("red", "ADJ"), ("hat", "NOUN"), ("'s", "PART"), (".", "PUNCT")]
    assert without_adjectives(tokens) == "The hat 's ."


@pytest.mark.parametrize(
    ("chunks", "questions"),
    [
        (["a green bench", "a blue bowl"], ["a green bench?", "a blue bowl?"]),
        (["the side", "A Dog", "top", "the left", "the right"], ["A Dog?"]),
        (["the top", "a left", "The side"], ["the top?", "a left?", "The side?"]),  # only the exact texts are dropped
        ([f"thing {i}" for i in range(10)], [f"thing {i}?" for i in range(8)]),
        (["top", *(f"thing {i}" for i in range(9))], [f"thing {i}?" for i in range(8)]),  # dropped before counting to 8
        ([], []),
    ],
)
def test_questions_about_noun_chunks(chunks, questions):
    assert attribute_questions(chunks) == questions


@pytest.mark.parametrize(
    ("prompt", "counts"),
    [
        ("a dog", [("dog", 1)]),
        ("an dog and one knife", [("dog", 1), ("knife", 1)]),
        ("two dogs and eight knives", [("dog", 2), ("knife", 8)]),
        ("three sheep", [("sheep", 3)]),  # the same word for one and many
        ("a sheep", [("sheep", 1)]),
        ("one dogs", [("dog", 1)]),
        ("two hot dogs", [("hot dog", 2)]),
        ("a hot dog", [("hot dog", 1)]),
        ("two hot dog", [("hot dog", 1)]),  # a pair that is not a plural counts once, whatever the number
        ("one hot dogs", [("hot dogs", 1)]),  # and is taken as written
        ("two hot", []),
        ("Two dogs", []),  # numbers are compared as they are written
        ("nine dogs", []),
        ("two Dogs", []),
        ("two unicorns", []),
        ("dogs two", []),
        ("five hounds", [("dog", 5)]),
    ],
)
def test_numbers_asked_for(prompt, counts):
    assert counts_in_prompt(prompt.split(), OBJECTS) == counts
