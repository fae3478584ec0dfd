"""Keeps special tokens that a user's text spells out from acting as such."""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def token_escaper(tokenizer: "PreTrainedTokenizerBase") -> Callable[[str], str]:
    """Return a function that breaks up the special tokens in a text.

    It puts a space behind the first character of every special token ("<image>" → "< image>"). Other texts stay as they
    are.
    """
    special = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    breakable = {text for text in special | set(tokenizer.all_special_tokens) if len(text) > 1}
    # The longest first, so that a token that begins like another is matched whole; (?!) matches nothing.
    pattern = re.compile("|".join(map(re.escape, sorted(breakable, key=len, reverse=True))) or r"(?!)")
    return lambda text: pattern.sub(lambda match: f"{match[0][0]} {match[0][1:]}", text)
