"""DPG-Bench's rules: from a question table and answers to scores.

Sources: arXiv 2403.05135, github.com/TencentQQGYLab/ELLA. There are two modes. `official` keeps the defects of the
published script, which are part of every published number: the table's first row is skipped, an item is dropped if
one of its questions depends on one that does not exist, and category scores see the last crop only. `fixed` has none
of them: all rows, all crops, and an unsound table is an error.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from thinkdraw.errors import UserError
from thinkdraw.types import Prompt, Question

Mode = Literal["official", "fixed"]
Answer = str | float | None
"""A judge's words, or its P(yes); None or NaN = no verdict."""


class DroppedItem(Exception):
    """The item cannot be scored: a question depends on one that the table lacks."""


@dataclass(frozen=True)
class CropScore:
    """One picture's score in 0..1, NaN = no verdict.

    raw: each question's point before zeroing, by its id.
    """

    score: float
    raw: Mapping[int, float]


@dataclass(frozen=True)
class ItemScore:
    """The score of each crop, their mean, and each crop's points before zeroing."""

    crops: tuple[float, ...]
    mean: float
    raw: tuple[Mapping[int, float], ...]


def prompts_of_table(rows: Iterable[Mapping[str, str]], mode: Mode = "official") -> list[Prompt]:
    """Read a question table's items in its order, with each question's category.

    The category is of the second level. rows: in the columns of dpg_bench.csv; proposition_id, dependency, tuple and
    question_natural_language are read. An item whose only row is skipped has no questions.
    Raises UserError for numbers that are none and, in mode `fixed`, for an id that an item has twice and for missing
    parents.
    """
    texts: dict[str, str] = {}
    questions: dict[str, dict[int, Question]] = {}
    previous = None
    for index, row in enumerate(rows):
        item = row["item_id"]
        texts.setdefault(item, row["text"].strip())
        questions_of_item = questions.setdefault(item, {})
        if mode == "official":
            if index == 0:
                continue  # upstream takes the table's first row for a header, which has been read already
            if item != previous:
                questions_of_item.clear()  # as upstream: an item whose rows begin again keeps only the last ones
        question = _question(row)
        if mode == "fixed" and question.id in questions_of_item:
            raise UserError(f"item {item}: two questions have the id {question.id}. Correct the table.")
        questions_of_item[question.id] = question
        previous = item
    if mode == "fixed":
        _check_parents(questions)
    return [Prompt(text, item, "dpg", questions=tuple(questions[item].values())) for item, text in texts.items()]


def _question(row: Mapping[str, str]) -> Question:
    try:
        number = int(row["proposition_id"])
        parents = [int(parent) for parent in row["dependency"].split(",")]
    except ValueError as error:
        raise UserError(
            f"item {row['item_id']}: proposition_id and dependency must be whole numbers ({error}). Correct the table."
        ) from error
    # The table writes 0 for a question without a parent.
    depends_on = tuple(parent for parent in parents if parent)
    category = row["tuple"].split("(")[0].strip()
    return Question(number, row["question_natural_language"], depends_on, category=category)


def _check_parents(questions: Mapping[str, Mapping[int, Question]]) -> None:
    for item, questions_of_item in questions.items():
        for question in questions_of_item.values():
            if absent := [parent for parent in question.depends_on if parent not in questions_of_item]:
                raise UserError(
                    f"item {item}: question {question.id} depends on {absent[0]}, which is not there. Correct the table."
                )


def point(answer: Answer) -> float:
    """Score an answer: 1 for the word "yes" or a P(yes) above ½, else 0.

    NaN without verdict.
    """
    if isinstance(answer, str):
        return float(answer == "yes")
    return math.nan if answer is None or math.isnan(answer) else float(answer > 0.5)


def crop_score(questions: Sequence[Question], answers: Mapping[int, Answer]) -> CropScore:
    """Compute the share of an item's questions that count for one picture.

    A question counts if it is answered yes, and so are all that it depends on. answers: by question id.
    Zeroes pass down a chain of questions only if parents come before their children, as upstream.
    A missing verdict makes the score NaN, unless a parent's no zeroes that question anyway.
    Raises DroppedItem where a parent is not among the questions, or where there are none.
    """
    if not questions:
        raise DroppedItem("it has no question")
    raw = {question.id: point(answers.get(question.id)) for question in questions}
    points = dict(raw)
    for question in questions:
        for parent in question.depends_on:
            if parent not in points:
                raise DroppedItem(f"question {question.id} depends on question {parent}, which is not in the table")
            if points[parent] == 0:
                points[question.id] = 0.0
                break
            if math.isnan(points[parent]) and points[question.id] == 1:
                points[question.id] = math.nan
    return CropScore(sum(points.values()) / len(points), raw)


def item_score(questions: Sequence[Question], answers: Sequence[Mapping[int, Answer]]) -> ItemScore:
    """Score an item's crops, and average those with a verdict.

    answers: per crop, in the grid's order.
    """
    crops = [crop_score(questions, answers_of_crop) for answers_of_crop in answers]
    judged = [crop.score for crop in crops if not math.isnan(crop.score)]
    mean = sum(judged) / len(judged) if judged else math.nan
    return ItemScore(tuple(crop.score for crop in crops), mean, tuple(crop.raw for crop in crops))


def category_points(
    questions: Sequence[Question], raw: Sequence[Mapping[int, float]], mode: Mode = "official"
) -> dict[str, list[float]]:
    """Map second-level category → the points, before zeroing, of its questions.

    Questions without a category are left out. raw: per crop, in order; mode `official` uses only the last one.
    """
    by_category: dict[str, list[float]] = {}
    for points in raw[-1:] if mode == "official" else raw:
        for question in questions:
            if question.category:
                by_category.setdefault(question.category, []).append(points[question.id])
    return by_category


def first_level(category: str) -> str:
    """ "attribute - color" → "attribute"."""
    return category.split("-")[0].strip()


def overall_score(item_means: Iterable[float]) -> float:
    """Compute the DPG-Bench score, 0..100: the mean over items with a verdict.

    NaN without any.
    """
    judged = [mean for mean in item_means if not math.isnan(mean)]
    return 100 * float(np.mean(judged)) if judged else math.nan


def category_scores(points: Iterable[Mapping[str, Sequence[float]]]) -> tuple[dict[str, float], dict[str, float]]:
    """Compute scores by category, (first level, second level), 0..100.

    points: what `category_points` gives for each item.
    """
    second: dict[str, list[float]] = {}
    for item in points:
        for category, values in item.items():
            second.setdefault(category, []).extend(values)
    first: dict[str, list[float]] = {}
    for category, values in second.items():
        first.setdefault(first_level(category), []).extend(values)
    return _means(first), _means(second)


def _means(by_category: Mapping[str, Sequence[float]]) -> dict[str, float]:
    return {category: overall_score(values) for category, values in by_category.items()}
