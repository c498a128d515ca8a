"""The user's mistakes, as one type: the command line prints the message on one line and exits with 2."""


class InputError(ValueError):
    """What was given cannot be used. The message says what was given, what is accepted, and what to do."""
