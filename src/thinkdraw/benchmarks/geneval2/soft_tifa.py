"""Soft-TIFA, GenEval 2's score (Kamath et al. 2025, arXiv 2512.16853), without any model: probabilities in, scores out."""

import math
from collections.abc import Sequence

NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
YES = ("Yes", "yes", " yes", " Yes")
QUESTION_FORMAT = "{question} Answer in one word."


def answer_strings(question: str, answer: str) -> tuple[str, ...]:
    """The strings whose first tokens' probabilities add up to the soft score of a question; an equal one counts twice.

    A number word has no digit beyond ten: upstream puts "other" there.
    """
    if not question.startswith("How many"):
        return YES
    word = answer.lower()
    digit = str(NUMBERS.index(word) + 1) if word in NUMBERS else "other"
    return (word, word.capitalize(), f" {word}", f" {word.capitalize()}", digit, f" {digit}")


def arithmetic_mean(scores: Sequence[float]) -> float:
    """Soft-TIFA AM of one picture: mean of its soft scores; NaN if one is missing."""
    return sum(scores) / len(scores) if scores else math.nan


def geometric_mean(scores: Sequence[float]) -> float:
    """Soft-TIFA GM of one picture: 0 if any soft score is 0, NaN if one is missing."""
    if not scores or any(math.isnan(score) for score in scores):
        return math.nan
    if any(score <= 0 for score in scores):
        return 0.0
    return math.exp(sum(math.log(score) for score in scores) / len(scores))


def counts_as_yes_no(question: str, answer: str) -> str:
    """ "How many pigs are in the image?" and "one" as a question that a judge of yes and no can answer."""
    things = question.removeprefix("How many").partition(" are in the image")[0].strip()
    return f"Is the number of {things} in the image exactly {answer}?"
