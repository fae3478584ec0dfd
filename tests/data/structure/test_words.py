import pytest

from thinkdraw.data.structure.words import (
    COLORS,
    GENEVAL_RELATIONS,
    GROUPS,
    MADE,
    MATERIALS,
    MORE_COLORS,
    OPPOSITE,
    SHAPEABLE,
    SHAPES,
    TEXTURES,
    WORDINGS,
    article,
    plural,
)
from thinkdraw.data.text_diversity import split_label
from thinkdraw.rewards import rules

NOUNS = [noun for group in GROUPS.values() for noun in group]


@pytest.mark.parametrize(
    "phrase",
    [
        "a unicycle", "a ukulele", "an umbrella", "an hourglass", "a house", "an orange cat", "an oval rug", "an octagonal clock",
        "a one-eyed cat", "an onion", "a yo-yo", "an ice cream cone", "a uniform", "an igloo", "an eggplant", "an oblong book",
    ],
)  # fmt: skip
def test_articles_follow_the_first_sound(phrase):
    assert article(phrase.split(" ", 1)[1]) == phrase


@pytest.mark.parametrize(
    ("noun", "many"),
    [
        ("dog", "dogs"), ("mouse", "mice"), ("goose", "geese"), ("sheep", "sheep"), ("wolf", "wolves"), ("knife", "knives"),
        ("bookshelf", "bookshelves"), ("goldfish", "goldfish"), ("jellyfish", "jellyfish"), ("octopus", "octopuses"),
        ("bus", "buses"), ("box", "boxes"), ("paintbrush", "paintbrushes"), ("peach", "peaches"), ("strawberry", "strawberries"),
        ("key", "keys"), ("donkey", "donkeys"), ("potato", "potatoes"), ("avocado", "avocados"), ("piano", "pianos"),
        ("cactus", "cacti"), ("leaf", "leaves"), ("scarf", "scarves"), ("giraffe", "giraffes"), ("axe", "axes"),
        ("coffee table", "coffee tables"), ("hourglass", "hourglasses"), ("magnifying glass", "magnifying glasses"),
        ("satellite dish", "satellite dishes"), ("battery", "batteries"), ("toy", "toys"), ("trophy", "trophies"),
    ],
)  # fmt: skip
def test_plurals(noun, many):
    assert plural(noun) == many


def test_there_are_hundreds_of_different_nouns_and_no_attribute_is_taken_for_one():
    assert len(NOUNS) == len(set(NOUNS)) > 350
    assert all(noun == noun.strip().lower() and "  " not in noun for noun in NOUNS)
    # Singular: no noun is another's plural, and none is its own but those that stay the same.
    same = {noun for noun in NOUNS if plural(noun) == noun}
    assert same == {"sheep", "deer", "moose", "jellyfish", "starfish", "goldfish"}
    assert not {plural(noun) for noun in NOUNS} & set(NOUNS) - same
    assert all(split_label(noun) == ([], noun) for noun in NOUNS)
    assert {*MADE, *SHAPEABLE} <= GROUPS.keys()


def test_colors_and_relations_of_geneval_are_those_of_its_rules():
    assert (COLORS, GENEVAL_RELATIONS) == (rules.COLORS, rules.RELATIONS)
    attributes = [*MORE_COLORS, *MATERIALS, *TEXTURES, *SHAPES]
    assert len(attributes) == len(set(attributes))
    assert OPPOSITE.keys() == WORDINGS.keys() and all(OPPOSITE[OPPOSITE[name]] == name for name in OPPOSITE)
