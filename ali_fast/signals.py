"""SIGINT and SIGTERM as a wish to stop, granted between two steps."""

from __future__ import annotations

import os
import signal
from types import FrameType

from ali_fast.errors import Interrupted


class Signals:
    """While inside, the first SIGINT or SIGTERM is noted in `received`; a second SIGINT ends the process at once.

    Until `arm` is called there is nothing new to save, and the first signal raises Interrupted where it falls: the
    first step may compile for minutes.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._armed = False

    def arm(self) -> None:
        self._armed = True

    def __enter__(self) -> Signals:
        self._before = {s: signal.signal(s, self._handle) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    def _handle(self, signum: int, _frame: FrameType | None) -> None:
        if not self._armed:
            raise Interrupted(signum)
        if self.received is not None and signum == signal.SIGINT:
            os._exit(128 + signum)
        self.received = signum
