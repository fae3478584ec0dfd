"""How T2I-CompBench multiplies answers and averages the parts of a complex prompt."""

import math

import numpy as np
import pytest

from thinkdraw.benchmarks.compbench.complex import (
    attribute_score,
    comparison_key,
    complex_kind,
    needed_scores,
    three_in_one,
)


@pytest.mark.parametrize(
    ("p_yes", "score"),
    [
        ([0.5, 0.5], 0.25),
        ([0.9], 0.9),
        ([1.0, 0.0], 0.0),
        ([0.12344], 0.1234),
        ([0.12346], 0.1235),
        ([0.00004], 0.0),  # rounded to 0.0000
        ([0.00006, 1.0], 0.0001),
        ([0.33335, 0.33335], 0.1111),  # 0.3333 or 0.3334, squared, to four decimals
        ([0.3333, 0.3333, 0.3333], 0.037),
        ([], 1.0),  # upstream's, which has no question to ask
    ],
)
def test_a_picture_scores_the_product_of_rounded_answers_with_four_decimals(p_yes, score):
    assert attribute_score(p_yes) == score


def test_each_answer_is_rounded_before_the_product():
    # unrounded 0.99996 ** 8 = 0.9997; each rounds to 1.0000
    assert attribute_score([0.99996] * 8) == 1.0


def test_the_product_is_one_of_float32():
    p = [0.7001, 0.9003, 0.8007]
    product = np.float32(0.7001) * np.float32(0.9003) * np.float32(0.8007)
    assert attribute_score(p) == float(f"{float(product):.4f}")


def test_an_answer_without_verdict_leaves_no_product():
    assert math.isnan(attribute_score([0.5, math.nan]))


@pytest.mark.parametrize(
    ("prompt", "text"),
    [
        ("The red hat was on the rack.", "the red hat was on the rack"),
        ("Mr. Fox sat down. He slept.", "mr"),
        ("  no full stop \n", "no full stop"),
    ],
)
def test_complex_prompts_are_compared_up_to_the_first_full_stop_in_lower_case(prompt, text):
    assert comparison_key(prompt) == text


def test_a_prompt_of_both_lists_is_spatial_and_one_of_none_is_both():
    assert complex_kind("A b.", {"a b"}, {"a b"}) == "spatial"
    assert complex_kind("A b.", set(), {"a b"}) == "action"
    assert complex_kind("A b.", set(), set()) == "spatialaction"


@pytest.mark.parametrize(
    ("kind", "parts", "score"),
    [
        ("spatial", (0.2, 0.6, math.nan), 0.4),  # (0.2 + 0.6) / 2, the action does not count
        ("action", (0.2, math.nan, 0.3), 0.25),
        ("spatialaction", (0.2, 0.6, 0.3), 1.1 / 3),
        ("spatial", (math.nan, 0.6, 0.3), math.nan),
        ("spatialaction", (0.2, math.nan, 0.3), math.nan),
        ("spatialaction", (0.2, 0.6, math.nan), math.nan),
    ],
)
def test_three_in_one_is_the_mean_of_what_the_prompt_is_scored_on(kind, parts, score):
    assert three_in_one(kind, *parts) == pytest.approx(score, nan_ok=True)


def test_what_each_kind_needs():
    assert needed_scores("spatial") == (True, False)
    assert needed_scores("action") == (False, True)
    assert needed_scores("spatialaction") == (True, True)


def test_the_official_complex_prompts_are_58_spatial_212_action_and_30_both(shared_dir):
    folder = shared_dir / "benchmarks" / "t2i_compbench"

    def lines(name):
        return [line.strip() for line in (folder / name).read_text().splitlines() if line.strip()]

    spatial, action = (
        {comparison_key(line) for line in lines(f"complex_val_{kind}.txt")} for kind in ("spatial", "action")
    )
    kinds = [complex_kind(line, spatial, action) for line in lines("complex_val.txt")]
    assert [kinds.count(kind) for kind in ("spatial", "action", "spatialaction")] == [58, 212, 30]
