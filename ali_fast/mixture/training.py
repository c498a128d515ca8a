"""Training R members of one model: the points in an order per member, a step, and now and then a line and a checkpoint.

A run is a function of its members' seeds and settings. A member whose loss is no longer finite is noted and goes on as
it is; the others neither wait for it nor see it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from torch import Tensor

from ali_fast import checkpoint
from ali_fast.data.order import Order
from ali_fast.live import clock
from ali_fast.metrics import MetricsFile
from ali_fast.mixture import sampling
from ali_fast.mixture.models import MODELS, Model
from ali_fast.mixture.nets import PAPER, Sizes
from ali_fast.mixture.setting import Setting
from ali_fast.mixture.step import Step
from ali_fast.signals import Signals

TICKS = 50  # lines of metrics a training
LOGGED = ("covered", "near", "high_quality", "reverse_kl", "reverse_kl_near")
"""Fields of measures.Modes in a line of metrics; the forward divergence is infinite until all modes are covered."""
SAVE_SECONDS = 600.0
KEEP = 2


@dataclass(frozen=True)
class Job:
    """What to train. `decoder`: the frozen one of inverse and post-hoc inference, as a state dict."""

    model: str
    settings: tuple[Setting, ...]
    seeds: tuple[int, ...]
    epochs: int
    batch_size: int
    decoder: dict[str, Tensor] | None = None
    sizes: Sizes = PAPER

    def build(self) -> Model:
        model = MODELS[self.model](len(self.seeds), self.sizes)
        model.initialize(list(self.seeds), [setting.init_std for setting in self.settings])
        if self.decoder is not None:
            model.decoder.load_state_dict(self.decoder)
        return model


@dataclass(frozen=True)
class Place:
    """Where a job trains, and how it tells."""

    directory: Path
    console: Console
    signals: Signals
    compile: bool = True


@dataclass(frozen=True)
class Trained:
    """A job's end. first_bad: per member, the first step whose loss was not finite, or None."""

    job: Job
    model: Model
    first_bad: list[int | None]
    steps: int
    seconds: float


def train(job: Job, points: Tensor, place: Place) -> Trained:
    """Train, or resume, in place.directory; points float32 [N, 2] on the device.

    Raises Interrupted after a signal to stop, with a checkpoint written.
    """
    checkpoints = place.directory / "checkpoints"
    checkpoints.mkdir(parents=True, exist_ok=True)
    orders = [Order(len(points), job.batch_size, seed) for seed in job.seeds]
    steps_per_epoch = len(orders[0])
    total = job.epochs * steps_per_epoch
    step = Step(
        job.build(),
        points,
        job.settings,
        job.seeds,
        total_steps=total,
        compile=place.compile,
        cuda_graph=points.device.type == "cuda",
    )
    found = checkpoint.read_newest(checkpoints, warn=place.console.print)
    if found is not None:
        path, state = found
        checkpoint.check_same_network(state["step"]["model"], step.model.state_dict(), path)
        step.load_state_dict(state["step"])
    log = _Log(job, step, place, total, steps_per_epoch, seconds=found[1]["seconds"] if found else 0.0)
    try:
        upcoming = upload(epoch_rows(orders, step.steps // steps_per_epoch), points.device)
        while step.steps < total and place.signals.received is None and not log.all_bad():
            epoch, start = divmod(step.steps, steps_per_epoch)
            rows = upcoming
            for s in range(start, steps_per_epoch):
                step(rows[s])
                log.advance()
                if s + 1 < steps_per_epoch:  # an epoch's last step has its line written before it is saved
                    log.save_if_due()
                    if place.signals.received is not None:
                        break
            else:
                if step.steps < total:  # before anything waits for the device, which is busy with what is queued
                    upcoming = upload(epoch_rows(orders, epoch + 1), points.device)
                if (epoch + 1) % log.tick_epochs == 0 or step.steps == total:
                    log.tick()
        log.save()
        place.signals.disarm()
        return Trained(job, step.model, step.first_bad_steps(), step.steps, log.seconds())
    finally:
        log.close()


def epoch_rows(orders: list[Order], epoch: int) -> Tensor:
    """int64 [S, R, B]: what each member sees in each step of an epoch, each in an order of its own."""
    orders_of_all = np.stack([order.epoch(epoch).reshape(len(order), -1) for order in orders], axis=1)
    return torch.from_numpy(np.ascontiguousarray(orders_of_all))


def upload(rows: Tensor, device: torch.device) -> Tensor:
    """To the device, behind what is queued there; the host waits for nothing."""
    return rows.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else rows


class _Log:
    """Lines in metrics.jsonl and on the console, checkpoints by the clock, the bar on a terminal."""

    def __init__(self, job: Job, step: Step, place: Place, total: int, steps_per_epoch: int, seconds: float):
        self.job, self.step, self.place = job, step, place
        self.total, self.steps_per_epoch = total, steps_per_epoch
        self.tick_epochs = max(1, job.epochs // TICKS)
        self.metrics = MetricsFile(place.directory / "metrics.jsonl", step=step.steps, warn=place.console.print)
        self.start = time.perf_counter() - seconds
        self.saved_at, self.saved_step = time.perf_counter(), step.steps if step.steps else None
        # the first step may compile: from its end this session's steps are timed, those of each tick from the last one
        self.timed_from_step: int | None = None
        self.timed_from_time = self.tick_started_time = time.perf_counter()
        self.tick_started_step = step.steps
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[left]}"))
        self.bar = Progress(*columns, console=place.console, transient=True, disable=not place.console.is_terminal)
        self.task = self.bar.add_task(job.model, total=total, completed=step.steps, left="compiling")
        self.bar.start()

    def seconds(self) -> float:
        return time.perf_counter() - self.start

    def advance(self) -> None:
        now, steps = time.perf_counter(), self.step.steps
        if self.timed_from_step is None:
            self.place.signals.arm()
            self.timed_from_step = self.tick_started_step = steps
            self.timed_from_time = self.tick_started_time = now
        self.bar.update(self.task, completed=steps, left=f"{self.left()} left")

    def save_if_due(self) -> None:
        if time.perf_counter() - self.saved_at > SAVE_SECONDS:
            self.save()

    def left(self) -> str:
        steps = self.step.steps
        if self.timed_from_step is None or steps == self.timed_from_step:
            return "?"
        seconds_per_step = (time.perf_counter() - self.timed_from_time) / (steps - self.timed_from_step)
        return clock((self.total - steps) * seconds_per_step)

    def tick(self) -> None:
        losses = self.step.read_losses()
        now, steps = time.perf_counter(), self.step.steps
        step_ms = (now - self.tick_started_time) / max(1, steps - self.tick_started_step) * 1e3
        of_modes = sampling.covered(self.step.model, self.job.seeds, sampling.SAMPLES)
        line: dict[str, Any] = {
            "step": steps,
            "epoch": steps / self.steps_per_epoch,
            "seconds": self.seconds(),
            "step_ms": step_ms,
            "first_bad_step": self.step.first_bad_steps(),
        }
        for name, values in zip(self.step.model.losses, losses.T, strict=True):
            line[name] = [value if np.isfinite(value) else None for value in values.tolist()]
        for name in LOGGED:
            values = [float("nan") if m is None else getattr(m, name) for m in of_modes]
            line[name] = [value if np.isfinite(value) else None for value in values]
        self.metrics.append(line)
        self.place.console.print(f"{self.job.model}  {self.describe(line)}", soft_wrap=True)
        self.tick_started_step, self.tick_started_time = steps, time.perf_counter()

    def describe(self, line: dict[str, Any]) -> str:
        modes = [m for m in line["covered"] if m is not None]
        words = [
            f"epoch {line['epoch']:.0f}/{self.job.epochs}",
            f"{self.left()} left",
            f"{line['step_ms']:.1f} ms/step",
        ]
        if modes:
            words.append(f"modes {sum(modes) / len(modes):.1f} ({min(modes)} to {max(modes)})")
        if bad := [str(r) for r, first in enumerate(line["first_bad_step"]) if first is not None]:
            words.append(f"diverged: run {', '.join(bad)}")
        return "  ".join(words)

    def all_bad(self) -> bool:
        """Nothing left to train. Waits for the device; asked once an epoch."""
        return all(first is not None for first in self.step.first_bad_steps())

    def save(self) -> None:
        """A checkpoint of this step, unless it is the one last written."""
        if self.saved_step != self.step.steps:
            state = {"step": self.step.state_dict(), "seconds": self.seconds()}
            checkpoint.save(self.place.directory / "checkpoints", self.step.steps, state, keep=KEEP)
            self.saved_at, self.saved_step = time.perf_counter(), self.step.steps

    def close(self) -> None:
        self.bar.stop()
        self.metrics.close()
