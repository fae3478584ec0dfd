import pytest

from thinkdraw.data.text_diversity import split_label, text_diversity
from thinkdraw.types import Prompt


def test_distinct_n_grams_and_distance_by_hand():
    # cat dog cat | cat owl: unigrams 3 different of 5; bigrams cat-dog, dog-cat, cat-owl: 3 of 3; trigrams 1 of 1.
    # words {cat, dog}, {cat, owl}: 1 shared of 3
    found = text_diversity([Prompt("a cat dog cat"), Prompt("the cat owl")])
    assert (found.distinct_1, found.distinct_2, found.distinct_3) == (3 / 5, 1.0, 1.0)
    assert found.jaccard_distance == pytest.approx(2 / 3)


def test_repeating_a_set_halves_its_distinct_n_grams_and_a_single_prompt_has_no_distance():
    once = [Prompt("a cat left of a dog")]
    assert text_diversity(once).distinct_2 == 1 and text_diversity(once).jaccard_distance == 0
    assert text_diversity(once * 2).distinct_2 == 0.5 and text_diversity(once * 2).jaccard_distance == 0


def test_nouns_attributes_and_relations_are_counted_over_clauses():
    clauses = (
        {"class": "cat", "count": 1, "color": "red"},
        {"class": "small striped circle", "count": 1, "position": ["above", 0]},  # as the lab names it
        {"class": "coffee table", "count": 1, "texture": "wooden", "color": "red", "relation": ["near", 0]},
    )
    found = text_diversity([Prompt("x", include=clauses), Prompt("y", include=clauses[:1])])
    assert (found.nouns, found.attributes, found.relations) == (3, 4, 2)  # red, small, striped, wooden


def test_a_class_is_split_into_attributes_and_noun():
    assert split_label("small striped circle") == (["small", "striped"], "circle")
    assert split_label("teddy bear") == ([], "teddy bear")
    assert split_label("large") == ([], "large")
