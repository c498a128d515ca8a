"""How far an evaluation is, on stderr's terminal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from rich.console import Console
from rich.progress import track

T = TypeVar("T")


def follow(values: Iterable[T], total: int, title: str, console: Console) -> Iterable[T]:
    """`values` one by one, with a bar on a terminal, else without."""
    return track(values, title, total, console=console, transient=True, disable=not console.is_terminal)
