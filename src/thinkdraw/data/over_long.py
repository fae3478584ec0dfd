"""Prompts that are too long for a policy: refused, cut at a word, or left out."""

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
    """Map the index of each prompt to the prompt as the policy can take it.

    over_long: what becomes of a prompt that is too long. source: of the prompts. key: of the setting, such as `prompts.over_long`, ""
    where there is none; both for messages. Raises UserError for a prompt that is empty or spells a control token, for a refused long
    one, and where no prompt is left.
    """
    kept = dict(enumerate(prompts))
    too_long: list[int] = []
    for index in _refused_indices(policy, prompts, sampling):
        where = f"{source}, prompt {index + 1} of {len(prompts)} ({prompts[index].id or 'without id'})"
        try:
            _take(policy, [prompts[index]], sampling)
        except TooLongError as error:
            if over_long == "refuse":
                raise UserError(f"{where}: {error}{f' {key}=cut or drop starts without it.' if key else ''}") from error
            too_long.append(index)
            cut = _cut(policy, prompts[index], sampling) if over_long == "cut" else None
            if cut is None:
                del kept[index]
            else:
                kept[index] = cut
        except UserError as error:
            raise UserError(f"{where}: {error}") from error
    if too_long:
        dropped = len(prompts) - len(kept)
        what = f"{len(too_long) - dropped} cut at a word, {dropped} left out"
        logger.warning("%d of %d prompts of %s are too long (%s): %s", len(too_long), len(prompts), source, key, what)
    if not kept:
        raise UserError(f"no prompt of {source} fits: lower sampling.max_thought_tokens, or give shorter ones.")
    return kept


def _refused_indices(policy: Policy, prompts: Sequence[Prompt], sampling: Sampling) -> list[int]:
    """Return the indices of the prompts that the policy does not take, for any reason.

    Whole batches are tried first, because most prompts are fine.
    """
    refused = []
    for begin in range(0, len(prompts), _AT_ONCE):
        batch = range(begin, min(begin + _AT_ONCE, len(prompts)))
        if _refuses(policy, [prompts[i] for i in batch], sampling):
            refused += [i for i in batch if _refuses(policy, [prompts[i]], sampling)]
    return refused


def _refuses(policy: Policy, prompts: Sequence[Prompt], sampling: Sampling) -> bool:
    try:
        _take(policy, prompts, sampling)
    except UserError:
        return True
    return False


def _take(policy: Policy, prompts: Sequence[Prompt], sampling: Sampling) -> None:
    # Any thought and picture will do: only the prompt's tokens are checked, with the whole thought budget behind them.
    codes = torch.zeros(len(prompts), policy.picture.num_tokens, dtype=torch.long)
    policy.teacher_forced(prompts, ["."] * len(prompts), codes, sampling)


def _cut(policy: Policy, prompt: Prompt, sampling: Sampling) -> Prompt | None:
    """Return the prompt's longest beginning of whole words that fits.

    None where not even one word fits.
    """
    words = prompt.text.split()
    low, high = 0, len(words) - 1
    while low < high:  # the first `low` words fit
        middle = (low + high + 1) // 2
        fits = not _refuses(policy, [replace(prompt, text=" ".join(words[:middle]))], sampling)
        low, high = (middle, high) if fits else (low, middle - 1)
    return replace(prompt, text=" ".join(words[:low])) if low else None
