"""A user's own reward, a function or object, wrapped as a `types.Reward`.

Only this module looks for optional attributes of a reward; everything else reads what `types.Reward` declares.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from thinkdraw.errors import OwnCodeError
from thinkdraw.rewards.base import BaseReward
from thinkdraw.rewards.judges_of import AnyJudge
from thinkdraw.runtime.registry import own_code
from thinkdraw.types import Reward, Rollouts, Verdicts


def as_reward(thing: Reward | Callable[[Rollouts], Any], name: str = "") -> Reward:
    """Wrap whatever can be called with rollouts; return shipped rewards unchanged.

    name: for an object that has none. Raises TypeError for an object that cannot be called.
    """
    if isinstance(thing, BaseReward):
        return thing
    if not callable(thing):
        raise TypeError(f"{type(thing).__name__} cannot be called with rollouts, so it is no reward.")
    return UserReward(thing, name)


class UserReward(BaseReward):
    """A user's reward as a `types.Reward`.

    call: the user's function or object. It takes rollouts and returns (B,) numbers, a tensor or a sequence, with NaN
    = no verdict; or it returns `Verdicts`.
    It may have attributes: `name`; `weights`, `revision`, `elsewhere` as in `types.Reward`; `components(rollouts)`
    and `component_applies(rollouts)`, part → (B,); `applies(rollouts)`, (B,) bool; `problems`, a Counter of reasons
    for no verdict. Its judges are searched for among its attributes.
    """

    def __init__(self, call: Callable[[Rollouts], Any], name: str = "") -> None:
        self.call = call
        self.name = str(getattr(call, "name", "") or name or getattr(call, "__name__", type(call).__name__))
        self.weights: Mapping[str, float] | None = getattr(call, "weights", None)

    @property
    def revision(self) -> str | None:
        return AnyJudge(self.call).revision

    @property
    def judges(self) -> Mapping[str, object]:
        return {"": self.call}

    def __call__(self, rollouts: Rollouts, /) -> Verdicts:
        with own_code(f"reward {self.name}", _rule(rollouts)):
            answer = self.call(rollouts)
        if isinstance(answer, Verdicts):
            return _without_infinity(self._check(answer, rollouts))
        applies = self._ask("applies", rollouts)
        verdicts = Verdicts.of(
            self._column("rewards", answer, rollouts),
            None if applies is None else self._column("applies", applies, rollouts, torch.bool),
            self._columns("components", rollouts),
            self._columns("component_applies", rollouts, torch.bool),
        )
        return _without_infinity(verdicts)

    def _check(self, verdicts: Verdicts, rollouts: Rollouts) -> Verdicts:
        """Check each column of the user's `Verdicts` like a plain answer."""
        flags = torch.bool
        return Verdicts.of(
            self._column("rewards", verdicts.rewards, rollouts),
            self._column("applies", verdicts.applies, rollouts, flags),
            self._each("parts", verdicts.parts, rollouts),
            self._each("part_applies", verdicts.part_applies, rollouts, flags),
            verdicts.notes if isinstance(verdicts.notes, Counter) else None,
        )

    def _columns(self, method: str, rollouts: Rollouts, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
        return self._each(method, self._ask(method, rollouts) or {}, rollouts, dtype)

    def _each(
        self, what: str, columns: object, rollouts: Rollouts, dtype: torch.dtype = torch.float32
    ) -> dict[str, Tensor]:
        if not isinstance(columns, Mapping):
            raise OwnCodeError(
                f"reward {self.name}: {what} is of type {type(columns).__name__}. Give a mapping of parts. {_rule(rollouts)}"
            )
        return {str(part): self._column(f"{what}[{part}]", v, rollouts, dtype) for part, v in columns.items()}

    def _column(self, what: str, values: Any, rollouts: Rollouts, dtype: torch.dtype = torch.float32) -> Tensor:
        """Convert to a (B,) tensor. Raises OwnCodeError where that is impossible."""
        rule = _rule(rollouts)
        try:
            column = torch.as_tensor(values).detach()
            if column.is_complex():
                raise TypeError("complex numbers have no order")
            column = column.to(dtype)
        except (TypeError, ValueError, RuntimeError, OverflowError) as error:
            why = f"of type {type(values).__name__} ({' '.join(str(error).split())[:120]})"
            raise OwnCodeError(f"reward {self.name}: {what} is {why}. {rule}") from error
        if column.shape != (len(rollouts),):
            raise OwnCodeError(f"reward {self.name}: {what} has shape {tuple(column.shape)}. {rule}")
        return column

    def _ask(self, method: str, rollouts: Rollouts) -> Any:
        """Call an optional method of the user's reward; None where it has none."""
        optional: Callable[[Rollouts], Any] | None = getattr(self.call, method, None)
        if not callable(optional):
            return None
        with own_code(f"reward {self.name}: {method}", _rule(rollouts)):
            return optional(rollouts)


def _rule(rollouts: Rollouts) -> str:
    return f"Return one number for each of the {len(rollouts)} rollouts, NaN for no verdict."


def _without_infinity(verdicts: Verdicts) -> Verdicts:
    """Turn infinite numbers into no verdict, and note how many there were.

    An infinite number cannot be compared with others: it would make the whole group's advantages NaN.
    """
    infinite = verdicts.rewards.isinf()
    if not infinite.any():
        return verdicts
    rewards = verdicts.rewards.masked_fill(infinite, torch.nan)
    notes = verdicts.notes + Counter({"infinite number": int(infinite.sum())})
    return dataclasses.replace(verdicts, rewards=rewards, notes=notes)
