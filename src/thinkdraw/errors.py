"""The one exception that is meant for the person at the keyboard."""


class UserError(Exception):
    """A problem the user can fix.

    The message is one line and says the value, the rule and the way out. The command line prints it without a
    traceback and exits with status 2.
    """
