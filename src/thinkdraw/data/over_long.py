"""Prompts that a policy has no room for: named and refused, cut at a word, or left out; and how many, in a line."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch

from thinkdraw.errors import TooLongError, UserError
from thinkdraw.types import Policy, Prompt, Sampling

logger = logging.getLogger(__name__)

OverLong = Literal["refuse", "cut", "drop"]
_AT_ONCE = 256


def fit_prompts(
    policy: Policy, prompts: Sequence[Prompt], sampling: Sampling, over_long: OverLong, source: str, key: str
) -> dict[int, Prompt]:
    """Place in `prompts` → the prompt as the policy can take it; where it is too long, `over_long` says what becomes of it.

    source: of the prompts. key: of the setting, such as `prompts.over_long`, "" where there is none; both for messages.
    Raises UserError for a prompt that is empty or spells a control token, a too long one that is refused, and where none is left.
    """
    kept = dict(enumerate(prompts))
    too_long: list[int] = []
    for place in _those_refused(policy, prompts, sampling):
        where = f"{source}, prompt {place + 1} of {len(prompts)} ({prompts[place].id or 'without id'})"
        try:
            _take(policy, [prompts[place]], sampling)
        except TooLongError as error:
            if over_long == "refuse":
                raise UserError(f"{where}: {error}{f' {key}=cut or drop starts without it.' if key else ''}") from error
            too_long.append(place)
            cut = _cut(policy, prompts[place], sampling) if over_long == "cut" else None
            if cut is None:
                del kept[place]
            else:
                kept[place] = cut
        except UserError as error:
            raise UserError(f"{where}: {error}") from error
    if too_long:
        dropped = len(prompts) - len(kept)
        what = f"{len(too_long) - dropped} cut at a word, {dropped} left out"
        logger.warning("%d of %d prompts of %s are too long (%s): %s", len(too_long), len(prompts), source, key, what)
    if not kept:
        raise UserError(f"no prompt of {source} fits: lower sampling.max_thought_tokens, or give shorter ones.")
    return kept


def _those_refused(policy: Policy, prompts: Sequence[Prompt], sampling: Sampling) -> list[int]:
    """Places of the prompts that the policy does not take, for whatever reason."""
    found = []
    for begin in range(0, len(prompts), _AT_ONCE):
        part = range(begin, min(begin + _AT_ONCE, len(prompts)))
        if _refuses(policy, [prompts[i] for i in part], sampling):
            found += [i for i in part if _refuses(policy, [prompts[i]], sampling)]
    return found


def _refuses(policy: Policy, prompts: Sequence[Prompt], sampling: Sampling) -> bool:
    try:
        _take(policy, prompts, sampling)
    except UserError:
        return True
    return False


def _take(policy: Policy, prompts: Sequence[Prompt], sampling: Sampling) -> None:
    # Any thought and picture will do: what is looked at are the prompt's tokens, with the whole budget behind them.
    codes = torch.zeros(len(prompts), policy.picture.num_tokens, dtype=torch.long)
    policy.teacher_forced(prompts, ["."] * len(prompts), codes, sampling)


def _cut(policy: Policy, prompt: Prompt, sampling: Sampling) -> Prompt | None:
    """The prompt's longest beginning of whole words that fits; None where not one word does."""
    words = prompt.text.split()
    low, high = 0, len(words) - 1
    while low < high:  # the first `low` words fit
        middle = (low + high + 1) // 2
        fits = not _refuses(policy, [replace(prompt, text=" ".join(words[:middle]))], sampling)
        low, high = (middle, high) if fits else (low, middle - 1)
    return replace(prompt, text=" ".join(words[:low])) if low else None
