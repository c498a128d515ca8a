"""What a training run writes: ticks, checkpoints and figures, always in this order.

The order is what makes a run resumable at any moment: a checkpoint of a step is written only after the tick of that
step, and a tick after the newest checkpoint is dropped and written again. Figures come last: where they fail, nothing
that was learned is lost.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import nvtx
import torch

from ali_fast import checkpoint, figures, report, traverse
from ali_fast.data.device import Wait
from ali_fast.errors import DivergedError
from ali_fast.inference import Inference
from ali_fast.live import LiveLine
from ali_fast.metrics import MetricsFile, TensorBoard, read_metrics, winner
from ali_fast.run_directory import RunDirectory
from ali_fast.step import Step
from ali_fast.training_data import TrainingData

SAVE_SECONDS = 600.0  # a checkpoint at least this often, however long a tick takes
SAMPLES = 100
SHOWN = 50  # of the validation images that are followed, drawn
PAIRS = 10  # rows of interpolations,
FRAMES = 22  # decoded images in each, for the animation,
STRIDE = 3  # and every third for the picture


class Speed:
    """Images per second and the share of time spent waiting for data, since `restart`."""

    def __init__(self, batch_size: int, wait: Wait, step: int) -> None:
        self.batch_size, self.wait = batch_size, wait
        self.restart(step)

    def restart(self, step: int) -> None:
        self.first, self.start, self.waited = step, time.perf_counter(), self.wait.seconds

    def measure(self, step: int) -> dict[str, float]:
        """Nothing where no step was taken since."""
        seconds, steps = time.perf_counter() - self.start, step - self.first
        if not steps:
            return {}
        return {
            "images_per_second": steps * self.batch_size / seconds,
            "step_ms": seconds / steps * 1e3,
            "data_wait_share": (self.wait.seconds - self.waited) / seconds,
        }


class Follower:
    """Of several processes, what each but the first does: takes part in what all have to do, and writes nothing."""

    last_line: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, step: Step) -> None:
        self.step = step
        self._saved_step: int | None = None
        self._drawn_step: int | None = None

    def started(self) -> None:
        """A session's first step was issued."""

    def advance(self) -> None:
        """A step was issued."""

    @nvtx.annotate("tick")
    def tick(self) -> None:
        """Read the device's sums and write them down. Raises DivergedError instead if anything is not finite."""
        self.check_finite()
        self._write_tick(self.step.read_metrics())

    @nvtx.annotate("figures")
    def draw(self) -> None:
        """Figures of fixed noise and validation images, and the report that shows them, over the previous ones; unless
        these are of this step."""
        if self._drawn_step == self.step.steps:
            return
        self._write_figures()
        self._drawn_step = self.step.steps

    @nvtx.annotate("checkpoint")
    def save(self) -> None:
        """A checkpoint of this step, unless it is the one last written."""
        if self._saved_step == self.step.steps:
            return
        self.check_finite()
        self._write_checkpoint(self.step.state_dict())
        self._saved_step = self.step.steps

    def try_out(self) -> None:
        """Before the first step: see that a checkpoint can be written."""
        self.save()

    def restored(self) -> None:
        """This step was read from its checkpoint: no need to write it again."""
        self._saved_step = self.step.steps

    def save_is_due(self) -> bool:
        return False

    def check_finite(self) -> None:
        if (found := what_diverged(self.step)) is not None:
            raise DivergedError(f"{found}{self._advice()}")

    def close(self) -> None: ...

    def _advice(self) -> str:
        return ""

    def _write_tick(self, means: dict[str, float]) -> None: ...

    def _write_figures(self) -> None: ...

    def _write_checkpoint(self, state: dict[str, Any]) -> None: ...


class Recorder(Follower):
    """Writes into `run`. `provenance` goes into every checkpoint."""

    def __init__(
        self,
        run: RunDirectory,
        step: Step,
        data: TrainingData,
        *,
        provenance: Mapping[str, Any],
        batch_size: int,
        keep: int,
        seconds_before: float,
        live: LiveLine,
        wait: Wait,
    ) -> None:
        super().__init__(step)
        self.run, self.live, self.provenance, self.keep = run, live, provenance, keep
        self.valid, self.condition, self.followed = data.valid.images, data.condition, data.followed
        self.valid_y = None if self.condition is None else data.valid.y
        self.steps_per_epoch = len(data.loader)
        height, width, channels = data.loader.manifest.shape
        self.inference = Inference(step.shown, (height, width, channels), self.condition)
        self.speed = Speed(batch_size, wait, step.steps)
        self.metrics = MetricsFile(run.metrics, step=step.steps, warn=live.say)
        self.tensorboard = TensorBoard(run.tensorboard, step=step.steps)
        self.last_line = next(reversed(read_metrics(run.metrics)), {})
        self._start = time.perf_counter() - seconds_before
        self._saved_at = time.perf_counter()

    def started(self) -> None:
        self.speed.restart(self.step.steps)

    def advance(self) -> None:
        self.live.advance(self.step.steps)

    def seconds(self) -> float:
        """Of training, over all sessions of the run."""
        return time.perf_counter() - self._start

    def try_out(self) -> None:
        """Write a checkpoint of step 0 and take it away: room and rights are seen now, not after the first hour.

        Kept, it would bind the run to its flags, and a start that was broken off is made again from the seed.
        """
        self.save()
        checkpoint.delete(self.run.checkpoints, self.step.steps)

    def save_is_due(self) -> bool:
        return time.perf_counter() - self._saved_at > SAVE_SECONDS

    def close(self) -> None:
        self.metrics.close()
        self.tensorboard.close()

    def _write_tick(self, means: dict[str, float]) -> None:
        steps, players = self.step.steps, self.step.model.players
        line: dict[str, Any] = {
            "step": steps,
            "total_images": steps * self.speed.batch_size,
            "epoch": steps / self.steps_per_epoch,
            "seconds": self.seconds(),
            **self.speed.measure(steps),
            **means,
        }
        if players.encoder:
            line["reconstruction_error"] = self.inference.reconstruction_error(self.valid, self.valid_y)
        if self.followed is not None:
            line["held_out_error"] = self.inference.classification_error(*self.followed)
        if players.judged:
            line["winner"] = winner(means["score_data"], means["score_sample"])
        if self.step.device.type == "cuda":
            line["peak_bytes"] = torch.cuda.max_memory_allocated(self.step.device)
        self.metrics.append(line)
        self.tensorboard.add_tick(line)
        self.live.tick(line)
        self.last_line = line
        self.speed.restart(steps)

    def _write_figures(self) -> None:
        asked = None if self.condition is None else self.condition.in_turn(SAMPLES, self.valid_y)
        sheets = {"samples": figures.grid(self.inference.sample(SAMPLES, y=asked).numpy(), columns=10)}
        if self.condition is not None:
            sheets["traverse"] = traverse.sheet(self.inference)
        if self.step.model.players.encoder:
            valid, y = self.valid[:SHOWN].numpy(), None if self.valid_y is None else self.valid_y[:SHOWN]
            pairs = min(PAIRS, len(valid) // 2)
            starts, ends = slice(0, 2 * pairs, 2), slice(1, 2 * pairs, 2)
            first, last = valid[starts], valid[ends]
            between = self.inference.interpolate(
                first, last, FRAMES, y=None if y is None else (y[starts], y[ends])
            ).numpy()
            sheets["reconstructions"] = figures.reconstructions(valid, self.inference.reconstruct(valid, y).numpy())
            sheets["interpolations"] = figures.interpolations(first, between[:, ::STRIDE], last)
            figures.write_webp(figures.back_and_forth(between), self.run.figures / "interpolations.webp")
        for name, sheet in sheets.items():
            figures.write_png(sheet, self.run.figures / f"{name}.png")
            self.tensorboard.add_figure(name, sheet, self.step.steps)
        report.write(self.run)
        self.speed.restart(self.step.steps)

    def _write_checkpoint(self, state: dict[str, Any]) -> None:
        whole = {"step": state, "conditions": dict(self.provenance), "seconds": self.seconds()}
        checkpoint.save(self.run.checkpoints, self.step.steps, whole, keep=self.keep)
        self._saved_at = time.perf_counter()
        self.speed.restart(self.step.steps)

    def _advice(self) -> str:
        kept = checkpoint.list_checkpoints(self.run.checkpoints)[:1]
        last = f"{kept[0]} is the last good checkpoint" if kept else "there is no checkpoint yet"
        return f"; {last}; train with a lower --learning-rate, or without --amp, in another --run-dir"


def what_diverged(step: Step) -> str | None:
    """What is no longer finite, and since when; waits for the device."""
    bad = step.first_bad_step()
    if bad is not None:
        return f"the loss became not finite at step {bad + 1}"
    tensors = [t for t in step.model.state_dict().values() if t.is_floating_point()]
    if torch.stack([t.isfinite().all() for t in tensors]).all():
        return None
    return f"the weights became not finite by step {step.steps}"
