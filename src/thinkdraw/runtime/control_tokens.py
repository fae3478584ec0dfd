"""Texts of others, made harmless: a special token that a question spells out must not act as one."""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def breaker(tokenizer: "PreTrainedTokenizerBase") -> Callable[[str], str]:
    """A function that puts a space behind the first character of every special token in a text; other texts stay as they are."""
    special = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    spelled = {text for text in special | set(tokenizer.all_special_tokens) if len(text) > 1}
    pattern = re.compile("|".join(map(re.escape, sorted(spelled, key=len, reverse=True))) or r"(?!)")
    return lambda text: pattern.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text)
