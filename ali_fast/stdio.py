"""Standard output and error as a command finds them: full, narrow, without Unicode, or gone. Standard library only."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import shutil
import sys
import termios

STDOUT, STDERR = 1, 2
LEAST_COLUMNS = 20  # tyro 1.0.17 never ends setting a help text in fewer than 8


def take_any_text() -> None:
    """What a stream cannot encode becomes "?": no command fails of how a box or a file's name is spelt."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def widen() -> None:
    """Say that a terminal of no width to speak of is LEAST_COLUMNS wide."""
    if shutil.get_terminal_size().columns < LEAST_COLUMNS:
        os.environ["COLUMNS"] = str(LEAST_COLUMNS)


def fall_silent(descriptor: int) -> None:
    """What is written there from now on goes nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


def leave_dead_terminals() -> None:
    """Fall silent where a terminal was closed: to write to it is an error, and there may be much to save yet."""
    for descriptor in (STDOUT, STDERR):
        try:
            termios.tcgetattr(descriptor)
        except termios.error as error:
            if error.args[0] == errno.EIO:
                fall_silent(descriptor)


def stdout_fails() -> bool:
    """Whether no more can be printed, on a full disk mostly: an empty line is. It falls silent then."""
    try:
        print(flush=True)
    except OSError:
        fall_silent(STDOUT)
        with contextlib.suppress(OSError):
            sys.stdout.flush()  # what is left of it, lest that be tried again at exit
        return True
    return False
