"""How far a conversion is: images and megabytes done, time left. On a terminal only."""

from __future__ import annotations

import sys
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from ali_fast.data.schema import Manifest


class Bar:
    """A context that is called with (the split being written, samples written): a line for each split."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("images, {task.fields[size]}"),
            TimeRemainingColumn(),
            console=Console(file=sys.stderr),
            disable=not sys.stderr.isatty(),
        )
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, manifest: Manifest, done: int) -> None:
        total = manifest.bytes / 1e6
        size = f"{total * done / manifest.count:,.1f}/{total:,.1f} MB"
        if manifest.split not in self._tasks:
            title = f"{manifest.dataset} {manifest.split}"
            self._tasks[manifest.split] = self._progress.add_task(title, total=manifest.count, size=size)
        self._progress.update(self._tasks[manifest.split], completed=done, size=size)

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
