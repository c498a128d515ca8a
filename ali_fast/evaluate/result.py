"""What an evaluation hands back: one table, and every number behind it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ali_fast.files import write_text
from ali_fast.run_directory import RunDirectory


@dataclass(frozen=True, kw_only=True)
class Result:
    """`rows` are cells as they are printed, the paper's below ours; `numbers` are plain JSON values."""

    task: str
    about: str
    """What was measured on what, in one line."""
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]
    paper: list[tuple[str, ...]] = field(default_factory=list)
    numbers: dict[str, Any]

    def to_text(self) -> str:
        lines = [self.columns, *self.rows]
        if self.paper:
            lines += [("the paper:", *[""] * (len(self.columns) - 1)), *self.paper]
        return "\n".join([self.about, "", *aligned(lines)])


def percent(share: float) -> str:
    """A share in [0, 1] in %, without the sign."""
    return f"{100 * share:.2f}"


def aligned(lines: Sequence[tuple[str, ...]]) -> list[str]:
    """Columns to one width: the first left, the others right."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return [
        "  ".join([line[0].ljust(widths[0]), *[c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True)]]).rstrip()
        for line in lines
    ]


def check_place(run: RunDirectory) -> None:
    """Raises OSError where no result could be kept: before the work, and not after it."""
    tempfile.TemporaryFile(dir=run.evaluation if run.evaluation.exists() else run.path).close()


def keep(run: RunDirectory, result: Result) -> Path:
    """Write RUN/evaluation/TASK.json over the last one; the run's report shows it."""
    run.evaluation.mkdir(exist_ok=True)
    path = run.evaluation / f"{result.task}.json"
    write_text(path, json.dumps(asdict(result), indent=2) + "\n")
    return path
