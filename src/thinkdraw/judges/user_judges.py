"""A judge of the user's own, held to its protocol: whatever it raises or gives is one line that names it."""

import functools
from collections.abc import Callable, Sequence, Sized
from typing import TypeVar

import torch

from thinkdraw.errors import OwnCodeError
from thinkdraw.runtime.registry import own_code
from thinkdraw.types import Detection

J = TypeVar("J")
Check = Callable[[object, int], object]
"""(what came, for how many things) → the answer as its callers use it. Raises ValueError with what came."""


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
            raise ValueError(f"{len(answer)} of them")
        if wrong := next((value for value in answer if not (value is None or kind(value))), None):
            raise ValueError(f"one of type {type(wrong).__name__}")
        return answer

    return check


def _are_detections(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(found, Detection) for found in value)


# Method → what is wanted of it, and how that is checked.
METHODS: dict[str, tuple[str, Check]] = {
    "answer": ("P(yes), a number in 0..1 or NaN, for each question", _probabilities),
    "score": ("a number or NaN for each pair of picture and text", _numbers),
    "log_likelihood": ("a number or NaN for each pair of picture and text", _numbers),
    "detect": ("a list of Detection, or None for no verdict, for each picture", _list_of(_are_detections)),
    "write": ("a text, or None for no answer, for each request", _list_of(lambda value: isinstance(value, str))),
}


def with_checked_answers(name: str, judge: J) -> J:
    """The judge itself, whose answers are checked from now on, and whose errors are OwnCodeError.

    name: as the user calls it. A judge of this package, or one that is guarded already, stays as it is.
    """
    kind = type(judge)
    if kind.__module__.partition(".")[0] == "thinkdraw" or getattr(kind, "has_checked_answers", False):
        return judge
    methods = {m: _with_check(f"judge {name}", getattr(kind, m), *METHODS[m]) for m in METHODS if hasattr(kind, m)}
    about = {
        "__module__": kind.__module__,
        "__qualname__": kind.__qualname__,
        "__doc__": kind.__doc__,
        "has_checked_answers": True,
    }
    try:
        object.__setattr__(judge, "__class__", type(kind.__name__, (kind,), about | methods))
    except TypeError:  # an object of fixed layout: its errors stay what they are
        return judge
    return judge


def _with_check(who: str, method: Callable[..., object], wanted: str, check: Check) -> Callable[..., object]:
    @functools.wraps(method)
    def ask(self: object, first: Sized, *others: Sized, **named: object) -> object:
        count = len(others[0]) if method.__name__ == "answer" and others else len(first)
        rule = f"{who}.{method.__name__} has to give {wanted}: {count} here."
        with own_code(f"{who}.{method.__name__}", rule):
            answer = method(self, first, *others, **named)
        try:
            return check(answer, count)
        except ValueError as error:
            raise OwnCodeError(f"{who}.{method.__name__} gave {error}. {rule}") from error

    return ask
