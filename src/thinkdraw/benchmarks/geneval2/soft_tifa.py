"""Soft-TIFA, GenEval 2's score, without any model: probabilities in, scores out.

Kamath et al. 2025, arXiv 2512.16853.
"""

import math
from collections.abc import Sequence

NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
YES = ("Yes", "yes", " yes", " Yes")
QUESTION_FORMAT = "{question} Answer in one word."


def answer_strings(question: str, answer: str) -> tuple[str, ...]:
    """List the strings whose first tokens' probabilities make the soft score.

    They add up; an equal one counts twice. A number word above ten has no digit: upstream puts "other" there.
    """
    if not question.startswith("How many"):
        return YES
    word = answer.lower()
    digit = str(NUMBERS.index(word) + 1) if word in NUMBERS else "other"
    return (word, word.capitalize(), f" {word}", f" {word.capitalize()}", digit, f" {digit}")


def arithmetic_mean(scores: Sequence[float]) -> float:
    """Compute one picture's Soft-TIFA AM: the mean of its soft scores.

    NaN if one is missing.
    """
    return sum(scores) / len(scores) if scores else math.nan


def geometric_mean(scores: Sequence[float]) -> float:
    """Compute one picture's Soft-TIFA GM: the geometric mean of its soft scores.

    0 if any is 0, NaN if one is missing.
    """
    if not scores or any(math.isnan(score) for score in scores):
        return math.nan
    if any(score <= 0 for score in scores):
        return 0.0
    return math.exp(sum(math.log(score) for score in scores) / len(scores))


def counts_as_yes_no(question: str, answer: str) -> str:
    """Turn a question about a number into one that a yes/no judge can answer.

    "How many pigs are in the image?" with the answer "one" becomes "Is the number of pigs in the image exactly one?"
    """
    things = question.removeprefix("How many").partition(" are in the image")[0].strip()
    return f"Is the number of {things} in the image exactly {answer}?"
