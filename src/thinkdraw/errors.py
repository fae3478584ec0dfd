"""The one exception that is meant for the person at the keyboard."""

import os
import re

# Line breaks, escape sequences, the signs that turn the direction of writing, and halves of characters.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: object) -> str:
    """A text of strangers for one line of a console: control characters and halves of characters are escaped."""
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), str(text))


class UserError(Exception):
    """A problem the user can fix.

    The message is one line and says the value, the rule and the way out. The command line prints it without a
    traceback and exits with status 2.
    """

    def __str__(self) -> str:
        return printable(super().__str__())  # also where a file's name holds a line break


class TooLongError(UserError):
    """A text has more tokens than there is room for; who knows where it came from may cut it or leave it out."""


class HeldError(UserError):
    """A folder holds something that was begun with another configuration, or of other inputs."""


class OwnCodeError(UserError):
    """Code of the user's own, a reward or a judge, raised, or gave something else than was asked for."""


def refuse_several_processes(what: str) -> None:
    """Raise UserError under torchrun with more than one process, each of which would do all of the work."""
    if "RANK" in os.environ and (size := os.environ.get("WORLD_SIZE", "1")) != "1":
        raise UserError(
            f"{what} works in one process, and was started in {size}, each of which would do all of it in the same "
            "folder. Start it without torchrun or accelerate: `train` divides its work over processes, for recipes that learn."
        )
