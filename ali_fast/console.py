"""Where a command speaks: rich's console, which outlives its reader."""

from __future__ import annotations

import os
import sys

from rich.console import Console


class Steady(Console):
    """When nobody reads any more (`ali-fast train | head`), it falls silent; rich's own would end the process."""

    def __init__(self) -> None:
        super().__init__(markup=False, highlight=False, emoji=False, soft_wrap=True)

    def on_broken_pipe(self) -> None:
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
