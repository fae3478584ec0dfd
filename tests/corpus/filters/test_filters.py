import math

import pytest

from thinkdraw.corpus.filters.filters import (
    ShapeSettings,
    bad_length,
    bad_shape,
    boilerplate,
    contradiction,
    language_of,
    low_score,
    match_test_prompts,
    repeats,
    wrong_language,
)
from thinkdraw.types import Prompt


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("A red circle is on the left of a blue star with a white background.", "English"),
        ("Ein roter Kreis ist auf der linken Seite und ein Stern im Hintergrund.", "German"),
        ("Un cercle rouge est à gauche avec une étoile bleue dans le fond.", "French"),
        ("Un círculo rojo está en la parte izquierda del cuadro con una estrella.", "Spanish"),
        ("красный круг слева от синей звезды", "not Latin"),
        ("左边有一个红色的圆圈", "not Latin"),
        ("red circle, blue star, white background", None),
        ("", None),
        ("café naïve façade", None),
    ],
)
def test_the_language_is_told_by_function_words_and_a_list_of_nouns_by_none(text, language):
    assert language_of(text) == language
    assert (wrong_language(text, "English") is None) == (language in (None, "English"))


@pytest.mark.parametrize(
    ("texts", "reason"),
    [
        (["a red circle"], None),
        (["the picture shows two objects. a sign says OK."], None),
        (["Here is a cat on a mat."], None),
        (["a cat", "I'm sorry, but I can't see the picture."], "refusal"),
        (["As an AI language model, I describe it."], "refusal"),
        (["Certainly! A cat."], "boilerplate"),
        (["Here is the description you wanted: a cat"], "boilerplate"),
        (["A cat. Let me know if you need more."], "boilerplate"),
        (["The image was not provided."], "boilerplate"),
    ],
)
def test_words_to_the_person_who_asks_are_told_from_words_about_the_picture(texts, reason):
    assert boilerplate(texts) == reason


@pytest.mark.parametrize(
    ("size", "reason"),
    [
        ((64, 64), None),
        ((63, 64), "shorter side below 64 pixels"),
        ((192, 64), None),
        ((64, 193), "longer than 3 to 1"),
    ],
)
def test_bounds_of_the_shape_are_kept(size, reason):
    assert bad_shape(*size, ShapeSettings()) == reason


def test_length_counts_words():
    assert bad_length("one two three", 3, 3) is None
    assert bad_length("one two", 3, 9) == "fewer than 3 words" and bad_length("a b c d", 1, 3) == "more than 3 words"


@pytest.mark.parametrize(
    ("p_yes", "is_contradicted"),
    [
        ([0.9, 0.8, 0.1], False),
        ([0.9, 0.1, 0.1], True),
        ([0.1, math.nan, math.nan], True),
        ([math.nan] * 3, False),
        ([], False),
    ],
)
def test_a_third_of_the_claims_may_be_denied_and_silence_is_no_denial(p_yes, is_contradicted):
    # max_frac 0.34: one of three is 0.33, two of three 0.67; of a single verdict, one denied is all
    assert (contradiction(p_yes, 0.5, 0.34) is not None) == is_contradicted


def test_no_score_is_no_low_score():
    assert low_score(math.nan, 5.0) is None and low_score(5.0, 5.0) is None and low_score(4.9, 5.0) == "below 5"


def test_a_repeat_is_found_by_its_words_and_the_first_one_stays():
    long = " ".join(f"w{n}" for n in range(40))
    nearly = long.replace("w20", "x")  # 3 of 38 triples differ on each side: 35 / 41 = 0.85 shared
    other = " ".join(f"v{n}" for n in range(40))
    texts = [long, other, "A red circle!", nearly, "a red circle", "w1 w2"]
    assert repeats(texts, 0.8) == {3: 0, 4: 2}
    assert repeats(texts, 0.9) == {4: 2} and repeats([], 0.8) == {}


def test_a_row_leaks_by_any_of_its_texts_or_by_its_clauses():
    clause = {"class": "cat", "count": 1}
    test = [Prompt("a photo of a dog"), Prompt("one cat", include=(clause,))]
    rows = [
        [Prompt("a bird"), Prompt("A dog.")],
        [Prompt("a sleeping pet", include=(clause,))],
        [Prompt("a bird"), Prompt("two dogs")],
    ]
    assert match_test_prompts(rows, test) == {0: "equal after normalisation", 1: "the same clauses"}
