"""How a command ends early. The command line prints the message on one line and exits with the code given here."""

import signal


class InputError(ValueError):
    """What was given cannot be used. The message says what was given, what is accepted, and what to do. Exit code 2."""


class DivergedError(RuntimeError):
    """Losses or weights are no longer finite. The message says since which step. Exit code 1."""


class Interrupted(BaseException):
    """A signal asked the process to stop; what is worth saving is saved. Exit code 128 + it: 143 for SIGTERM."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.exit_code = 128 + signum
