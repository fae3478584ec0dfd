"""Removes thoughts and cut words from a model's reply."""

import re

# <think>, <thinking>, <thought>, <reasoning>, <seed:think>, [THINK], ◁think▷, and the channels of gpt-oss.
_NAME = r"(?:\w+:)?(?:think(?:ing)?|thoughts?|reasoning)"
_BEGIN = re.compile(rf"<{_NAME}>|\[THINK\]|◁think▷|<\|channel\|>\s*(?:analysis|commentary)", re.IGNORECASE)
_END = re.compile(rf"</{_NAME}>|\[/THINK\]|◁/think▷|<\|channel\|>\s*final\s*<\|message\|>", re.IGNORECASE)


def strip_thoughts(text: str) -> str:
    """Return what follows the last thought; nothing of a thought that does not end.

    A thought may end without a beginning, where the chat template begins it.
    """
    *_, last = (0, *(match.end() for match in _END.finditer(text)))
    unfinished = _BEGIN.search(text, last)
    return text[last : unfinished.start() if unfinished else None].strip()


def drop_last_word(text: str) -> str:
    """Return a cut text without its last word, which may be incomplete."""
    return re.sub(r"\S*\Z", "", text).rstrip()
