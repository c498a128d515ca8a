"""The loop: a batch, a step, and now and then what `record` writes.

A run is a function of its configuration and data: the order of the images is a function of (seed, epoch), the noise
comes from generators that every checkpoint carries, and the place in the data is the step count. So a run that was
stopped and resumed is the run that was not.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from typing import Any

import nvtx
import torch
from rich.console import Console

from ali_fast import checkpoint, decide, environment, parallel, presets
from ali_fast.build import build_step, frozen_decoder, placed
from ali_fast.config import TrainConfig
from ali_fast.data.resident import resident_bytes
from ali_fast.data.source import Batch, Source
from ali_fast.errors import InputError, Interrupted
from ali_fast.files import write_text
from ali_fast.live import LiveLine
from ali_fast.parallel import World
from ali_fast.record import Follower, Recorder
from ali_fast.run_directory import RunDirectory
from ali_fast.signals import Signals
from ali_fast.step import Step
from ali_fast.training_data import open_data

TICKS_A_RUN, MOST_TICK_IMAGES = 50, 100_000


def train(config: TrainConfig, console: Console) -> dict[str, Any]:
    """Train, or resume, the run of `config` in its run directory; returns its last tick's line ({} if none was due).

    Of several processes (ali_fast.parallel) the first one speaks and writes.

    The data must have been prepared. Raises InputError for what cannot be used, DivergedError when losses or weights
    are no longer finite, Interrupted after a signal to stop.
    """
    config = config.resolved()
    with parallel.world(config.device) as world:
        where = decide.device(config.device).device
        config = placed(config, where)
        assert config.run_dir is not None
        run = RunDirectory(config.run_dir)
        if not world.first:
            return _train(config, where, run, Console(quiet=True), world)
        with run.locked():
            run.check_training(config)
            return _train(config, where, run, console, world)


def _train(
    config: TrainConfig, where: torch.device, run: RunDirectory, console: Console, world: World
) -> dict[str, Any]:
    """Build the step from the data, or from the newest checkpoint as well, and run it."""
    preset = presets.resolve(config.dataset, config.preset)
    data = open_data(config, preset, where, world)
    dtype, why = decide.dtype(config.amp, where)
    if decide.SLOW_BF16 in why:
        console.print(f"warning: {why}")
    resident, why = decide.resident(config.data, where, resident_bytes(data.loader.manifest))
    how = "held on the device" if resident else "streamed"
    console.print(f"training images: {how} ({why}){'' if resident else '; compiling the reader'}")
    source = Source(data.loader, where, resident, conditional=data.condition is not None)
    step = build_step(config, preset, data, source, dtype, world, frozen_decoder(config, preset, run), console)
    provenance = data.provenance() | {
        "objective": config.objective,
        "ema": config.ema,
        "dtype": str(dtype),
        "processes": world.size,
    }
    seconds, resumed = restore(step, run, provenance, console)
    total = total_steps(config, len(data.loader))
    if world.first:
        run.make_folders()
        if step.steps <= total:  # else it is longer than what is asked for, and stays what it is
            run.adopt(config)
            write_text(run.environment, json.dumps(environment.collect(), indent=2) + "\n")
    live = LiveLine(
        console,
        total_steps=total,
        steps_per_epoch=len(data.loader),
        start_step=step.steps,
        session_seconds=config.minutes and config.minutes * 60,
    )
    with contextlib.ExitStack() as stack:
        stack.callback(step.close)
        signals = stack.enter_context(Signals())
        recorder = Follower(step)
        if world.first:
            assert config.batch_size is not None
            recorder = Recorder(
                run,
                step,
                data,
                provenance=provenance,
                batch_size=config.batch_size,
                keep=config.keep,
                seconds_before=seconds,
                live=stack.enter_context(live),
                wait=source.wait,
            )
        stack.enter_context(contextlib.closing(recorder))
        if resumed:
            recorder.restored()
        else:
            recorder.try_out()
        if step.steps >= total:
            console.print(f"already at step {step.steps} of {total}: a larger --epochs or --steps trains on")
        run_to_the_end(config, step, source, total, recorder, signals, console)
    return dict(recorder.last_line)


def run_to_the_end(
    config: TrainConfig,
    step: Step,
    source: Source,
    total: int,
    recorder: Follower,
    signals: Signals,
    console: Console,
) -> None:
    """`loop`, and what is saved at its end, whatever that is. Raises Interrupted after a signal."""
    try:
        with contextlib.closing(source.batches(step.steps)) as batches:
            stopped = loop(config, step, batches, total, recorder, signals)
        if not stopped:
            finish(step, recorder)
            if step.steps < total:
                console.print(f"--minutes are over at step {step.steps} of {total}: the same command trains on")
    except (InputError, OSError):  # the data, or a disk: what was learned so far is good
        if step.world.size == 1:  # else the others are in the step still
            with contextlib.suppress(InputError, OSError):
                recorder.save()
        raise
    (stopped,) = step.world.all_max(stopped or signals.received or 0)
    if stopped:
        recorder.save()
        step.world.all_max(0)  # torchrun gives the others 30 s when one has ended: not before the first has saved
        console.print(f"saved step {step.steps}: the same command resumes")
        raise Interrupted(stopped)


def loop(
    config: TrainConfig,
    step: Step,
    batches: Iterator[Batch],
    total: int,
    recorder: Follower,
    signals: Signals,
) -> int:
    """Train until `total` steps, the session's end, or a signal, which is returned; 0 if there was none.

    What one process is moved to, all do at that step.
    """
    steps_per_tick = tick_steps(config, total)
    started = step.steps
    end = float("inf")
    while True:
        signum, over, due = step.world.all_max(
            signals.received or 0, time.perf_counter() >= end, recorder.save_is_due()
        )
        if signum or over or step.steps >= total:
            return signum
        if due:
            recorder.save()
        with nvtx.annotate("data wait"):
            batch = next(batches)
        with nvtx.annotate("step"):
            step(*batch)
        if step.steps == started + 1:  # it may have compiled: no measure of the others, and till now nothing to save
            recorder.started()
            signals.arm()
            if config.minutes:  # of training: they begin now
                end = time.perf_counter() + config.minutes * 60
        recorder.advance()
        tick, rest = divmod(step.steps, steps_per_tick)
        if rest == 0:
            recorder.tick()
        if rest == 0 and tick % config.checkpoint_ticks == 0:
            recorder.save()
        if rest == 0 and tick % config.figure_ticks == 0:
            recorder.draw()


def finish(step: Step, recorder: Follower) -> None:
    """The end of a bounded run: whatever the cadence, a last tick, a checkpoint and figures."""
    if step.summed:
        recorder.tick()
    recorder.save()
    recorder.draw()


def restore(step: Step, run: RunDirectory, provenance: dict[str, Any], console: Console) -> tuple[float, bool]:
    """Load the newest good checkpoint into `step`; returns the seconds trained before and whether there was one.

    Raises InputError for a checkpoint of another network, data set or arithmetic, and where processes find others.
    """
    found = checkpoint.read_newest(run.checkpoints, warn=lambda line: console.print(line, soft_wrap=True))
    steps = -1 if found is None else found[1]["step"]["steps"]
    most, least = step.world.all_max(steps, -steps)
    if most != -least:
        raise InputError(
            f"--run-dir {run.path}: not all processes find the same checkpoints there; share it among them"
        )
    if found is None:
        return 0.0, False
    path, state = found
    checkpoint.check_same_network(state["step"]["model"], step.model.state_dict(), path)
    # What an older version did not write down is not compared; it knew one process.
    was = provenance | {"processes": 1} | state["conditions"]
    if differing := [f"{k}: {was[k]} -> {v}" for k, v in provenance.items() if was[k] != v]:
        raise InputError(
            f"{path} was trained under other conditions ({'; '.join(differing)}): "
            f"bring those back, or give another --run-dir"
        )
    step.load_state_dict(state["step"])
    console.print(f"resuming {run.path} at step {step.steps}", soft_wrap=True)
    return state["seconds"], True


def total_steps(config: TrainConfig, steps_per_epoch: int) -> int:
    if config.steps is not None:
        return config.steps
    assert config.epochs is not None
    return config.epochs * steps_per_epoch


def tick_steps(config: TrainConfig, total: int) -> int:
    """Steps from one tick to the next, at least one."""
    assert config.batch_size is not None
    images = config.tick_images or min(MOST_TICK_IMAGES, total * config.batch_size // TICKS_A_RUN)
    return max(1, round(images / config.batch_size))
