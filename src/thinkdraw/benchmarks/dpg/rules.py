"""DPG-Bench's rules: from a question table and answers to scores (arXiv 2403.05135, github.com/TencentQQGYLab/ELLA).

Two modes. `official` keeps the defects of the published script, which are part of every published number: the table's
first row is skipped, an item with a question that depends on one that is not there is dropped, and category scores see
the last crop only. `fixed` has none of them: all rows, all crops, and a table that is not sound is an error.
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
    """The item cannot be scored: a question depends on one that the table does not have."""


@dataclass(frozen=True)
class CropScore:
    """One picture's score in 0..1 (NaN = no verdict), and each question's point before zeroing, by its id."""

    score: float
    raw: Mapping[int, float]


@dataclass(frozen=True)
class ItemScore:
    """The score of each crop, their mean, and each crop's points before zeroing."""

    crops: tuple[float, ...]
    mean: float
    raw: tuple[Mapping[int, float], ...]


def prompts_of_table(rows: Iterable[Mapping[str, str]], mode: Mode = "official") -> list[Prompt]:
    """The items of a question table in its order, each question with its second-level category.

    rows: in the columns of dpg_bench.csv; proposition_id, dependency, tuple and question_natural_language are read.
    An item whose only row is skipped has no questions. Raises UserError for numbers that are none and, in mode `fixed`,
    for an id that an item has twice and for parents that it does not have.
    """
    texts: dict[str, str] = {}
    questions: dict[str, dict[int, Question]] = {}
    previous = None
    for index, row in enumerate(rows):
        item = row["item_id"]
        texts.setdefault(item, row["text"].strip())
        asked = questions.setdefault(item, {})
        if mode == "official":
            if index == 0:
                continue
            if item != previous:
                asked.clear()  # upstream begins anew wherever an item's rows begin again
        question = _question(row)
        if mode == "fixed" and question.id in asked:
            raise UserError(f"item {item}: two questions have the id {question.id}. Correct the table.")
        asked[question.id] = question
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
    # 0 is the table's way to write that a question has no parent.
    depends_on = tuple(parent for parent in parents if parent)
    category = row["tuple"].split("(")[0].strip()
    return Question(number, row["question_natural_language"], depends_on, category=category)


def _check_parents(questions: Mapping[str, Mapping[int, Question]]) -> None:
    for item, asked in questions.items():
        for question in asked.values():
            if absent := [parent for parent in question.depends_on if parent not in asked]:
                raise UserError(
                    f"item {item}: question {question.id} depends on {absent[0]}, which is not there. Correct the table."
                )


def point(answer: Answer) -> float:
    """1 for exactly the word "yes" or a P(yes) above ½, else 0; NaN without verdict."""
    if isinstance(answer, str):
        return float(answer == "yes")
    return math.nan if answer is None or math.isnan(answer) else float(answer > 0.5)


def crop_score(questions: Sequence[Question], answers: Mapping[int, Answer]) -> CropScore:
    """The share of an item's questions that count for one picture: answered yes, and so is all that they depend on.

    answers: by question id. Zeroes pass down a chain of questions as far as parents come before their children. A
    missing verdict makes the score NaN, unless it is a question that a parent's no zeroes.
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
    """The scores of an item's crops, and the mean over those with a verdict. answers: per crop, in the grid's order."""
    crops = [crop_score(questions, given) for given in answers]
    judged = [crop.score for crop in crops if not math.isnan(crop.score)]
    mean = sum(judged) / len(judged) if judged else math.nan
    return ItemScore(tuple(crop.score for crop in crops), mean, tuple(crop.raw for crop in crops))


def category_points(
    questions: Sequence[Question], raw: Sequence[Mapping[int, float]], mode: Mode = "official"
) -> dict[str, list[float]]:
    """Second-level category → the points, before zeroing, of an item's questions in it; those without one are left out.

    raw: per crop, in order; `official` looks at the last one only.
    """
    found: dict[str, list[float]] = {}
    for points in raw[-1:] if mode == "official" else raw:
        for question in questions:
            if question.category:
                found.setdefault(question.category, []).append(points[question.id])
    return found


def first_level(category: str) -> str:
    """ "attribute - color" → "attribute"."""
    return category.split("-")[0].strip()


def overall_score(item_means: Iterable[float]) -> float:
    """DPG-Bench, 0..100: the mean over the items with a verdict; NaN without any."""
    judged = [mean for mean in item_means if not math.isnan(mean)]
    return 100 * float(np.mean(judged)) if judged else math.nan


def category_scores(points: Iterable[Mapping[str, Sequence[float]]]) -> tuple[dict[str, float], dict[str, float]]:
    """(first level, second level) → 0..100, over what `category_points` gives for each item."""
    second: dict[str, list[float]] = {}
    for item in points:
        for category, found in item.items():
            second.setdefault(category, []).extend(found)
    first: dict[str, list[float]] = {}
    for category, found in second.items():
        first.setdefault(first_level(category), []).extend(found)
    return _means(first), _means(second)


def _means(found: Mapping[str, Sequence[float]]) -> dict[str, float]:
    return {category: overall_score(values) for category, values in found.items()}
