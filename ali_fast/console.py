"""Where a command speaks: rich's console, which outlives its reader."""

from __future__ import annotations

from rich.console import Console

from ali_fast.stdio import STDOUT, fall_silent


class Steady(Console):
    """When nobody reads any more (`ali-fast train | head`), it falls silent; rich's own would end the process."""

    def __init__(self) -> None:
        super().__init__(markup=False, highlight=False, emoji=False, soft_wrap=True)

    def on_broken_pipe(self) -> None:
        self.quiet = True
        fall_silent(STDOUT)
