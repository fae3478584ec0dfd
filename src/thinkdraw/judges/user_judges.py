"""Checks what a user's own judge returns; an error is one line that names it."""

import functools
from collections.abc import Callable, Sequence, Sized
from typing import TypeVar

import torch

from thinkdraw.errors import OwnCodeError
from thinkdraw.runtime.registry import own_code
from thinkdraw.types import Detection

J = TypeVar("J")
Check = Callable[[object, int], object]
"""(answer, number of things asked about) → the answer as callers use it. Raises ValueError that says what it was."""


def _numbers(answer: object, count: int) -> torch.Tensor:
    try:
        numbers = torch.as_tensor(answer, dtype=torch.float32)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"something of type {type(answer).__name__}") from error
    if numbers.shape != (count,):
        raise ValueError(f"numbers of shape {tuple(numbers.shape)}")
    return numbers


def _probabilities(answer: object, count: int) -> torch.Tensor:
    numbers = _numbers(answer, count)
    if bool(((numbers < -1e-5) | (numbers > 1 + 1e-5)).any()):
        raise ValueError(
            f"numbers from {float(numbers.nan_to_num(0.5).min()):g} to {float(numbers.nan_to_num(0.5).max()):g}"
        )
    return numbers


def _list_of(kind: Callable[[object], bool]) -> Check:
    def check(answer: object, count: int) -> object:
        if isinstance(answer, str | bytes) or not isinstance(answer, Sequence):
            raise ValueError(f"something of type {type(answer).__name__}")
        if len(answer) != count:
            raise ValueError(f"{len(answer)} items")
        if wrong := next((value for value in answer if not (value is None or kind(value))), None):
            raise ValueError(f"an item of type {type(wrong).__name__}")
        return answer

    return check


def _are_detections(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, Detection) for item in value)


# Method → what it has to give, in words, and the check of it.
METHODS: dict[str, tuple[str, Check]] = {
    "answer": ("P(yes), a number in 0..1 or NaN, for each question", _probabilities),
    "score": ("a number or NaN for each pair of picture and text", _numbers),
    "log_likelihood": ("a number or NaN for each pair of picture and text", _numbers),
    "detect": ("a list of Detection, or None for no verdict, for each picture", _list_of(_are_detections)),
    "write": ("a text, or None for no answer, for each request", _list_of(lambda value: isinstance(value, str))),
}


def with_checked_answers(name: str, judge: J) -> J:
    """Make the judge check its answers and raise its errors as OwnCodeError.

    Returns the same object. name: as the user calls it. A judge of this package stays as it is, and so does one that is
    checked already.
    """
    kind = type(judge)
    if kind.__module__.partition(".")[0] == "thinkdraw" or getattr(kind, "has_checked_answers", False):
        return judge
    methods = {m: _with_check(f"judge {name}", getattr(kind, m), *METHODS[m]) for m in METHODS if hasattr(kind, m)}
    # A subclass made here replaces the object's class, so that isinstance, attributes and identity stay what they were.
    attributes = {
        "__module__": kind.__module__,
        "__qualname__": kind.__qualname__,
        "__doc__": kind.__doc__,
        "has_checked_answers": True,
    }
    try:
        object.__setattr__(judge, "__class__", type(kind.__name__, (kind,), attributes | methods))
    except (
        TypeError
    ):  # an object of fixed layout (slots, C types) cannot change its class; its errors stay what they are
        return judge
    return judge


def _with_check(who: str, method: Callable[..., object], expected: str, check: Check) -> Callable[..., object]:
    @functools.wraps(method)
    def ask(self: object, first: Sized, *others: Sized, **named: object) -> object:
        count = len(others[0]) if method.__name__ == "answer" and others else len(first)
        rule = f"{who}.{method.__name__} has to give {expected}: {count} here."
        with own_code(f"{who}.{method.__name__}", rule):
            answer = method(self, first, *others, **named)
        try:
            return check(answer, count)
        except ValueError as error:
            raise OwnCodeError(f"{who}.{method.__name__} gave {error}. {rule}") from error

    return ask
