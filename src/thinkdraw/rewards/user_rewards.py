"""A user's own reward, any function or object that makes a number of each rollout, wrapped as a `types.Reward`.

This is the one place that looks for optional attributes of a reward; everything else reads what `types.Reward` declares.
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
    """Return a shipped reward as it is, and anything else that can be called with rollouts wrapped.

    name: for a thing that has none. Raises TypeError for what cannot be called.
    """
    if isinstance(thing, BaseReward):
        return thing
    if not callable(thing):
        raise TypeError(f"{type(thing).__name__} cannot be called with rollouts, so it is no reward.")
    return UserReward(thing, name)


class UserReward(BaseReward):
    """A user's reward as a `types.Reward`.

    call: the user's. It takes rollouts and gives (B,) numbers, a tensor or a sequence, NaN = no verdict; or `Verdicts`.
    It may have attributes: `name`; `weights`, `revision`, `elsewhere` as in `types.Reward`; `components(rollouts)` and
    `component_applies(rollouts)`, part → (B,); `applies(rollouts)`, (B,) bool; `problems`, a Counter of why rows got no
    verdict. Its judges are found among its attributes.
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
            return _finite(self._checked(answer, rollouts))
        applies = self._ask("applies", rollouts)
        verdicts = Verdicts.of(
            self._column("rewards", answer, rollouts),
            None if applies is None else self._column("applies", applies, rollouts, torch.bool),
            self._columns("components", rollouts),
            self._columns("component_applies", rollouts, torch.bool),
        )
        return _finite(verdicts)

    def _checked(self, given: Verdicts, rollouts: Rollouts) -> Verdicts:
        """The user's `Verdicts`, each of whose columns is held to the same as a plain answer."""
        flags = torch.bool
        return Verdicts.of(
            self._column("rewards", given.rewards, rollouts),
            self._column("applies", given.applies, rollouts, flags),
            self._each("parts", given.parts, rollouts),
            self._each("part_applies", given.part_applies, rollouts, flags),
            given.notes if isinstance(given.notes, Counter) else None,
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
        """(B,). Raises OwnCodeError for anything else."""
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
        """What an optional method of the user's reward gives; None where it has none."""
        ask: Callable[[Rollouts], Any] | None = getattr(self.call, method, None)
        if not callable(ask):
            return None
        with own_code(f"reward {self.name}: {method}", _rule(rollouts)):
            return ask(rollouts)


def _rule(rollouts: Rollouts) -> str:
    return f"Return one number for each of the {len(rollouts)} rollouts, NaN for no verdict."


def _finite(verdicts: Verdicts) -> Verdicts:
    """The same, where an infinite number, which nothing can be compared with, is no verdict and is noted."""
    infinite = verdicts.rewards.isinf()
    if not infinite.any():
        return verdicts
    rewards = verdicts.rewards.masked_fill(infinite, torch.nan)
    notes = verdicts.notes + Counter({"infinite number": int(infinite.sum())})
    return dataclasses.replace(verdicts, rewards=rewards, notes=notes)
