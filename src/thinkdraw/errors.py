"""Errors that a user can fix: one line with the value, the rule and the way out."""

import os
import re

# Line breaks, escape sequences, marks that turn the writing direction, and halves of surrogate pairs.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: object) -> str:
    """Escape what could move the cursor or break the line: the text may be anybody's."""
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode(), str(text))


class UserError(Exception):
    """A problem the user can fix.

    The message is one line and says the value, the rule and the way out. The command line prints it without a
    traceback and exits with status 2.
    """

    def __str__(self) -> str:
        """Return the message on one line, even where a file's name holds a line break."""
        return printable(super().__str__())


class TooLongError(UserError):
    """A text has more tokens than there is room for.

    A caller that knows where the text came from may cut it or leave it out.
    """


class HeldError(UserError):
    """A folder holds results of another configuration, or of other inputs."""


class OwnCodeError(UserError):
    """The user's own reward or judge raised an error, or returned the wrong thing."""


def refuse_several_processes(what: str) -> None:
    """Raise UserError under torchrun with more than one process.

    what: the verb or recipe, which does not divide its work: every process would do all of it.
    """
    if "RANK" in os.environ and (size := os.environ.get("WORLD_SIZE", "1")) != "1":
        raise UserError(
            f"{what} works in one process, and was started in {size}. Start it without torchrun or accelerate: only `train` "
            "divides its work over processes, for recipes that learn."
        )
