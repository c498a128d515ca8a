"""How far an evaluation is, on stderr's terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import Progress

T = TypeVar("T")


def follow(values: Iterable[T], total: int, title: str, console: Console) -> Iterator[T]:
    """`values` one by one, with a bar on a terminal, else without."""
    with Progress(console=console, disable=not console.is_terminal, transient=True) as progress:
        yield from progress.track(values, total=total, description=title)
