"""The live line: on a terminal a bar and the last tick's numbers, elsewhere one plain line per tick."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

REDRAW_SECONDS = 0.25


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss, or m:ss below an hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def score_names(line: Mapping[str, Any]) -> tuple[str, str]:
    """What D sees: pairs, or a GAN's images alone."""
    return ("D(x,z_hat)", "D(x_tilde,z)") if "sigma" in line else ("D(x)", "D(x_tilde)")


def describe_tick(line: Mapping[str, Any]) -> str:
    """A tick's numbers on one line: those that its objective has."""
    data, sample = score_names(line)
    forms = {
        "loss_d": "L_d {:.3f}",
        "loss_g": "L_g {:.3f}",
        "score_data": data + " {:.2f}",
        "score_sample": sample + " {:.2f}",
        "loss_labels": "L_labels {:.3f}",
        "loss": "loss {:.3f}",
        "reconstruction": "-log p(x|z) {:.2f}",
        "kl": "KL {:.2f}",
        "sigma": "sigma {:.3f}",
        "reconstruction_error": "rec {:.4f}",
        "held_out_error": "held-out error {:.1%}",
        "data_wait_share": "data wait {:.0%}",
    }
    said = [form.format(line[name]) for name, form in forms.items() if name in line]
    return "  ".join([*said, *([f"skipped {line['skipped_steps']:.0f}"] if line.get("skipped_steps") else [])])


class LiveLine:
    """Progress towards `total_steps`, drawn while inside. Between ticks only the host's step count: no sync."""

    def __init__(
        self,
        console: Console,
        *,
        total_steps: int,
        steps_per_epoch: int,
        start_step: int,
        session_seconds: float | None = None,
    ) -> None:
        self._console = console
        self._total_steps = total_steps
        self._steps_per_epoch = steps_per_epoch
        self._step = self._start_step = start_step
        self._start = self._drawn = time.perf_counter()
        self._session_seconds = session_seconds
        self._end: float | None = None
        self._timed = False
        self._winner: str | None = None
        self._tick = ""
        self._live: Live | None = None
        if console.is_terminal:
            self._live = Live(self._render(), console=console, auto_refresh=False)

    def __enter__(self) -> LiveLine:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def advance(self, step: int) -> None:
        """`step` updates have been issued."""
        self._step = step
        now = time.perf_counter()
        if not self._timed:  # the first step compiles: no measure of the rest
            self._timed, self._start, self._start_step = True, now, step
            if self._session_seconds is not None:
                self._end = now + self._session_seconds
        if self._live is not None and now - self._drawn >= REDRAW_SECONDS:
            self._drawn = now
            self._live.update(self._render(), refresh=True)

    def tick(self, line: Mapping[str, Any]) -> None:
        """A tick is done: `line` is what `metrics.jsonl` got."""
        speed = f"{line['images_per_second']:,.0f} images/s  " if "images_per_second" in line else ""
        self._tick = speed + describe_tick(line)
        self._step = line["step"]
        if self._live is None:
            self.say(f"{self._position()}  {self._tick}")
        else:
            self._live.update(self._render(), refresh=True)
        player = line.get("winner")
        if player not in (None, self._winner):
            data, sample = score_names(line)
            self.say(
                f"warning: the {player} has won at step {line['step']}: little is learned from here on "
                f"(mean {data} {line['score_data']:.3f}, mean {sample} {line['score_sample']:.3f})"
            )
        self._winner = player

    def say(self, message: str) -> None:
        """A line of its own, above the live one."""
        self._console.print(Text(message), soft_wrap=True)

    def _position(self) -> str:
        epochs = self._total_steps / self._steps_per_epoch
        now = time.perf_counter()
        done, spent = self._step - self._start_step, now - self._start
        left = (self._total_steps - self._step) * spent / done if done else None
        if left is not None and self._end is not None:
            left = min(left, max(0.0, self._end - now))
        return (
            f"epoch {self._step / self._steps_per_epoch:.1f}/{epochs:.1f}  "
            f"step {self._step}/{self._total_steps}  "
            f"{'starting' if left is None else f'{clock(left)} left'}"
        )

    def _render(self) -> Group:
        share = self._step / max(1, self._total_steps)
        width = max(10, min(40, self._console.width - 60))
        bar = "━" * round(share * width)
        return Group(
            Text.assemble((bar, "green"), ("━" * (width - len(bar)), "dim"), " ", self._position()),
            Text(self._tick, overflow="ellipsis", no_wrap=False),
        )
