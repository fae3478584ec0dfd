"""What can be read of a model's reply: no thoughts, and no word that was cut."""

import re

# <think>, <thinking>, <thought>, <reasoning>, <seed:think>, [THINK], ◁think▷, and the channels of gpt-oss.
_NAME = r"(?:\w+:)?(?:think(?:ing)?|thoughts?|reasoning)"
_BEGIN = re.compile(rf"<{_NAME}>|\[THINK\]|◁think▷|<\|channel\|>\s*(?:analysis|commentary)", re.IGNORECASE)
_END = re.compile(rf"</{_NAME}>|\[/THINK\]|◁/think▷|<\|channel\|>\s*final\s*<\|message\|>", re.IGNORECASE)


def strip_thoughts(text: str) -> str:
    """What stands after the last thought; nothing of one that does not end.

    A thought may end without having begun, where the chat template begins it.
    """
    *_, last = (0, *(match.end() for match in _END.finditer(text)))
    begun = _BEGIN.search(text, last)
    return text[last : begun.start() if begun else None].strip()


def drop_last_word(text: str) -> str:
    """A text that was cut, without the word that it was cut in."""
    return re.sub(r"\S*\Z", "", text).rstrip()
