"""SIGINT, SIGTERM and SIGHUP (the terminal is gone) as a wish to stop, granted between two steps."""

from __future__ import annotations

import os
import signal
from types import FrameType

from ali_fast.errors import Interrupted
from ali_fast.stdio import leave_dead_terminals


def to_stop() -> list[signal.Signals]:
    """Those beside SIGINT that ask this process to stop. A SIGHUP that is ignored, as nohup has it, stays so."""
    hangs_up = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN
    return [signal.SIGTERM, signal.SIGHUP] if hangs_up else [signal.SIGTERM]


class Signals:
    """While inside, the first of them is noted in `received`; a second SIGINT ends the process at once.

    Until `arm` is called, and after `disarm`, there is nothing new to save, and the first signal raises Interrupted
    where it falls: the first step may compile for minutes.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._armed = False

    def arm(self) -> None:
        self._armed = True

    def disarm(self) -> None:
        """All is saved. Raises Interrupted if a signal was noted."""
        self._armed = False
        if self.received is not None:
            raise Interrupted(self.received)

    def __enter__(self) -> Signals:
        self._before = {s: signal.signal(s, self._handle) for s in (signal.SIGINT, *to_stop())}
        return self

    def __exit__(self, *_: object) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    def _handle(self, signum: int, _frame: FrameType | None) -> None:
        if signum == signal.SIGHUP:
            leave_dead_terminals()
        if not self._armed:
            raise Interrupted(signum)
        if self.received is not None and signum == signal.SIGINT:
            os._exit(128 + signum)
        self.received = signum
