"""What a run says about itself, once per tick: a JSON line and TensorBoard's scalars.

A tick is a span of training of a fixed number of images; its values are means over it, added up on the
device. A run that ends between two ticks ends with a shorter one; lengthened, it goes on from there. Every tick
stands once in `metrics.jsonl`, also when the run was stopped and resumed: a resumed run first drops the lines after
its checkpoint.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ali_fast.files import whole

WON_HIGH, WON_LOW = 0.99, 0.01  # mean D beyond which the game is over


def winner(score_data: float, score_sample: float) -> str | None:
    """The player that mean D(x, z_hat) and mean D(x_tilde, z) show to have won; None while they compete."""
    if score_data > WON_HIGH and score_sample < WON_LOW:
        return "discriminator"
    if score_data < WON_LOW and score_sample > WON_HIGH:
        return "generator"
    return None


class MetricsFile:
    """`metrics.jsonl`: one line per tick, with at least "step", appended and synced: a kill loses no tick.

    On opening, lines after `step` (the checkpoint's) are dropped, and one that a kill left half-written. Damaged lines
    are moved to `metrics.jsonl.damaged`; `warn` is told of that, and where there is no file to go on with.
    """

    def __init__(self, path: Path, *, step: int, warn: Callable[[str], None]) -> None:
        if path.exists():
            _cut_after(path, step, warn)
        elif step:
            warn(f"warning: {path} is not there: the run's curves begin anew at step {step}")
        self._file = open(path, "ab")  # noqa: SIM115  closed by `close`

    def append(self, line: Mapping[str, Any]) -> None:
        """Write one tick. Values that are not finite become null: JSON has no NaN."""
        clean = {key: None if isinstance(v, float) and not math.isfinite(v) else v for key, v in line.items()}
        self._file.write(json.dumps(clean, allow_nan=False).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def _cut_after(path: Path, step: int, warn: Callable[[str], None]) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    ticks = [_parse(raw) for raw in lines]
    kept = [raw for raw, tick in zip(lines, ticks, strict=True) if tick is not None and tick["step"] <= step]
    if len(kept) == len(lines):
        return
    if damaged := [raw for raw, tick in zip(lines, ticks, strict=True) if tick is None and not _is_torn(raw)]:
        aside = path.with_name(f"{path.name}.damaged")
        with aside.open("ab") as file:
            file.write(b"".join(damaged))
        warn(f"warning: {path}: damaged lines ({len(damaged)}) are moved to {aside.name}: the curves lack their ticks")
    with whole(path) as part:
        part.write_bytes(b"".join(kept))


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The ticks of a `metrics.jsonl`, oldest first; a half-written last line and damaged ones are left out."""
    lines = map(_parse, path.read_bytes().splitlines(keepends=True))
    return [line for line in lines if line is not None]


def _parse(raw: bytes) -> dict[str, Any] | None:
    """A tick; None for what is none, or not whole."""
    try:
        line = json.loads(raw) if raw.endswith(b"\n") else None
    except ValueError:
        return None
    return line if isinstance(line, dict) and isinstance(line.get("step"), int) else None


def _is_torn(raw: bytes) -> bool:
    """Whether it may be the beginning of a tick, as a kill leaves it."""
    return raw.startswith(b"{") and not raw.endswith(b"\n")


class TensorBoard:
    """The same numbers and the figures as TensorBoard events under `directory`, by step.

    `step` is the checkpoint's: TensorBoard is told to drop what an earlier, killed process wrote after it.
    """

    def __init__(self, directory: Path, *, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # a second to import

        self._writer = SummaryWriter(str(directory), purge_step=step + 1)

    def add_tick(self, line: Mapping[str, Any]) -> None:
        for name, value in line.items():
            if isinstance(value, float):
                self._writer.add_scalar(name, value, line["step"])

    def add_figure(self, name: str, image: Any, step: int) -> None:
        """`image`: uint8 [H, W, C]."""
        self._writer.add_image(name, image, step, dataformats="HWC")

    def close(self) -> None:
        self._writer.close()
