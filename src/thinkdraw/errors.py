"""The one exception that is meant for the person at the keyboard."""


class UserError(Exception):
    """A problem the user can fix.

    The message is one line and says the value, the rule and the way out. The command line prints it without a
    traceback and exits with status 2.
    """


class TooLongError(UserError):
    """A text has more tokens than there is room for; who knows where it came from may cut it or leave it out."""


class HeldError(UserError):
    """A folder holds something that was begun with another configuration, or of other inputs."""
