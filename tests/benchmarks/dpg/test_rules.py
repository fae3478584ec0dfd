"""DPG-Bench's rules, and the defects of its script that `official` keeps and `fixed` does not."""

import math

import pytest

from thinkdraw.benchmarks.dpg.rules import (
    DroppedItem,
    category_points,
    category_scores,
    crop_score,
    first_level,
    item_score,
    overall_score,
    point,
    prompts_of_table,
)
from thinkdraw.errors import UserError
from thinkdraw.types import Question

CATEGORY = "entity - whole"


def ask(id, *parents, category=CATEGORY):
    return Question(id, f"question {id}?", parents, category=category)


def row(item, number, dependency="0", tuple_="entity - whole (dog)"):
    return {
        "item_id": item, "text": f"text of {item} ", "keywords": "", "proposition_id": str(number), "dependency": dependency,
        "category_broad": "entity", "category_detailed": "whole", "tuple": tuple_,
        "question_natural_language": f"question {number}?",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("answer", "worth"),
    [
        ("yes", 1.0),
        ("no", 0.0),
        ("Yes", 0.0),  # the answer must equal "yes"
        ("yes it is", 0.0),
        ("", 0.0),
        (0.51, 1.0),
        (0.5, 0.0),
        (True, 1.0),
        (None, math.nan),
        (math.nan, math.nan),
    ],
)
def test_a_point_is_exactly_yes_or_more_than_half_a_probability(answer, worth):
    assert point(answer) == pytest.approx(worth, nan_ok=True)


@pytest.mark.parametrize(
    ("questions", "answers", "score"),
    [
        ([ask(1), ask(2)], "yy", 1.0),
        ([ask(1), ask(2)], "yn", 0.5),
        ([ask(1), ask(2, 1)], "ny", 0.0),  # a no zeroes what depends on it, which stays in the denominator
        ([ask(1), ask(2, 1), ask(3, 2)], "nyy", 0.0),  # and so down the chain
        ([ask(1), ask(2, 1), ask(3, 2)], "yny", 1 / 3),
        ([ask(1), ask(2), ask(3, 1, 2)], "yny", 1 / 3),  # one of several parents is enough
        ([ask(1), ask(2), ask(3, 1, 2)], "yyy", 1.0),
        # in order: 1 is looked at while its parent 2 is still a yes; then 3's no zeroes 2
        ([ask(1, 2), ask(2, 3), ask(3)], "yyn", 1 / 3),
        ([ask(1, 1), ask(2)], "yy", 1.0),
    ],
)
def test_a_picture_scores_the_share_of_questions_that_count(questions, answers, score):
    given = {q.id: "yes" if a == "y" else "no" for q, a in zip(questions, answers)}
    assert crop_score(questions, given).score == pytest.approx(score)


def test_points_before_zeroing_are_kept():
    found = crop_score([ask(1), ask(2, 1)], {1: "no", 2: "yes"})
    assert found.score == 0 and found.raw == {1: 0.0, 2: 1.0}


@pytest.mark.parametrize(
    ("questions", "answers", "score"),
    [
        ([ask(1), ask(2)], {1: "yes"}, math.nan),  # 2 has no answer
        ([ask(1), ask(2)], {1: "yes", 2: None}, math.nan),
        ([ask(1), ask(2, 1)], {1: "no", 2: None}, 0.0),  # whatever the answer is, its parent's no zeroes it
        ([ask(1), ask(2, 1)], {1: None, 2: "yes"}, math.nan),
        ([ask(1), ask(2), ask(3, 1, 2)], {1: None, 2: "no", 3: "yes"}, math.nan),  # 1 itself is missing
    ],
)
def test_a_missing_verdict_is_none_unless_a_parents_no_decides(questions, answers, score):
    assert crop_score(questions, answers).score == pytest.approx(score, nan_ok=True)


def test_an_unknown_parent_makes_a_yes_unknown_and_leaves_a_no():
    assert math.isnan(crop_score([ask(1), ask(2, 1)], {1: math.nan, 2: 0.9}).score)
    two_unknown = crop_score([ask(1), ask(2, 1), ask(3, 2)], {1: "no", 2: math.nan, 3: "yes"})
    assert two_unknown.score == 0  # 1's no zeroes 2, which zeroes 3


def test_an_item_is_dropped_where_a_parent_is_not_in_the_table():
    with pytest.raises(DroppedItem, match="question 2 depends on question 1"):
        crop_score([ask(2, 1)], {2: "yes"})
    with pytest.raises(DroppedItem, match="no question"):
        crop_score([], {})


def test_the_look_for_parents_ends_at_the_first_no_as_upstream():
    # parents are looked up in order: 1 says no before 9, which does not exist, is reached
    assert crop_score([ask(1), ask(2, 1, 9)], {1: "no", 2: "yes"}).score == 0
    with pytest.raises(DroppedItem):
        crop_score([ask(1), ask(2, 9, 1)], {1: "no", 2: "yes"})


def test_an_item_scores_the_mean_of_its_crops():
    questions = [ask(1), ask(2)]
    crops = [{1: "yes", 2: "yes"}, {1: "yes", 2: "no"}, {1: "no", 2: "no"}, {1: "yes", 2: "yes"}]
    found = item_score(questions, crops)
    assert found.crops == (1.0, 0.5, 0.0, 1.0) and found.mean == 0.625


def test_a_crop_without_verdict_leaves_the_mean_of_the_others():
    found = item_score([ask(1)], [{1: "yes"}, {1: None}])
    assert found.mean == 1.0 and math.isnan(found.crops[1])
    assert math.isnan(item_score([ask(1)], [{1: None}]).mean)


def test_the_overall_score_is_a_hundred_times_the_mean_over_items():
    assert overall_score([1.0, 0.5, math.nan]) == 75.0
    assert math.isnan(overall_score([math.nan]))


def test_official_categories_see_the_last_crop_and_fixed_ones_see_all():
    questions = [ask(1), ask(2, 1, category="attribute - color"), ask(3, category="attribute - size")]
    raw = item_score(questions, [{1: "yes", 2: "yes", 3: "yes"}, {1: "no", 2: "yes", 3: "no"}]).raw
    official, fixed = (category_points(questions, raw, mode) for mode in ("official", "fixed"))
    # raw points: question 2 keeps its yes though its parent says no
    assert official == {CATEGORY: [0.0], "attribute - color": [1.0], "attribute - size": [0.0]}
    assert fixed == {CATEGORY: [1.0, 0.0], "attribute - color": [1.0, 1.0], "attribute - size": [1.0, 0.0]}
    first, second = category_scores([official])
    assert first == {"entity": 0.0, "attribute": 50.0} and second["attribute - color"] == 100.0
    assert category_scores([fixed])[0] == {"entity": 50.0, "attribute": 75.0}


def test_categories_pool_the_questions_of_all_items():
    one = {CATEGORY: [1.0]}
    two = {CATEGORY: [0.0, 0.0, 0.0], "global": [math.nan]}
    first, second = category_scores([one, two])
    assert first["entity"] == second[CATEGORY] == 25.0
    assert math.isnan(first["global"])  # nothing in it has a verdict


@pytest.mark.parametrize(
    ("category", "level"),
    [("entity - whole", "entity"), ("global", "global"), ("other - count - exact", "other"), ("relation- spatial", "relation")],
)  # fmt: skip
def test_the_first_level_is_what_stands_before_the_first_dash(category, level):
    assert first_level(category) == level


def test_the_official_mode_skips_the_tables_first_row_and_fixed_reads_it():
    rows = [row("a", 1), row("a", 2, "1"), row("b", 1)]
    official, fixed = (prompts_of_table(rows, mode) for mode in ("official", "fixed"))
    assert [[q.id for q in prompt.questions] for prompt in official] == [[2], [1]]
    assert [[q.id for q in prompt.questions] for prompt in fixed] == [[1, 2], [1]]
    with pytest.raises(DroppedItem):  # the item whose first question was skipped
        crop_score(official[0].questions, {2: "yes"})
    assert crop_score(fixed[0].questions, {1: "yes", 2: "yes"}).score == 1


def test_an_item_that_does_not_depend_on_the_skipped_row_is_scored_without_it():
    official = prompts_of_table([row("a", 1), row("a", 2)])
    assert crop_score(official[0].questions, {2: "yes"}).score == 1


def test_an_item_whose_only_row_is_skipped_keeps_its_prompt():
    found = prompts_of_table([row("a", 1), row("b", 1)])
    assert [prompt.id for prompt in found] == ["a", "b"] and found[0].questions == ()


def test_a_row_gives_its_question_its_parents_and_its_category():
    prompt = prompts_of_table([row("a", 1), row("a", 2), row("a", 3, "1, 2", "attribute - color (dog, red)")], "fixed")[
        0
    ]
    assert prompt.text == "text of a" and prompt.tag == "dpg"
    assert prompt.questions[2] == Question(3, "question 3?", (1, 2), category="attribute - color")
    assert prompt.questions[0].depends_on == ()


def test_the_official_mode_begins_an_item_anew_where_its_rows_begin_again():
    rows = [row("z", 1), row("a", 1), row("a", 2), row("b", 1), row("a", 3)]
    official, fixed = (prompts_of_table(rows, mode) for mode in ("official", "fixed"))
    assert [q.id for q in official[1].questions] == [3]
    assert [q.id for q in fixed[1].questions] == [1, 2, 3]


def test_of_a_number_that_an_item_has_twice_the_later_counts_officially_and_fixed_refuses_it():
    rows = [row("z", 1), row("a", 1), row("a", 1, "0", "global (photo)")]
    assert [q.category for q in prompts_of_table(rows)[1].questions] == ["global"]
    with pytest.raises(UserError, match="two questions have the id 1"):
        prompts_of_table(rows, "fixed")


def test_fixed_refuses_a_parent_that_is_not_there():
    with pytest.raises(UserError, match="question 2 depends on 7"):
        prompts_of_table([row("a", 1), row("a", 2, "7")], "fixed")


@pytest.mark.parametrize("broken", [row("a", "x"), row("a", 1, "one"), row("a", 1, "")])
def test_numbers_must_be_numbers(broken):
    with pytest.raises(UserError, match="whole numbers"):
        prompts_of_table([row("z", 1), broken])
