"""The loop: a batch, a step, and now and then what `record` writes.

A run is a function of its configuration and data: the order of the images is a function of (seed, epoch), the noise
comes from generators that every checkpoint carries, and the place in the data is the step count. So a run that was
stopped and resumed is the run that was not.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from collections.abc import Iterator
from typing import Any

import nvtx
import torch
from rich.console import Console
from torch import Tensor

from ali_fast import api, checkpoint, decide, environment, kernels, parallel, presets, process
from ali_fast.condition import Condition
from ali_fast.config import TrainConfig
from ali_fast.data.device import y_of
from ali_fast.data.labelled import Labelled, labelled_subset
from ali_fast.data.loader import BetonLoader, first_samples
from ali_fast.data.resident import resident_bytes
from ali_fast.data.schema import DamagedError, beton_path
from ali_fast.data.source import Batch, Source
from ali_fast.errors import InputError, Interrupted
from ali_fast.files import write_text
from ali_fast.live import LiveLine
from ali_fast.model import ALI, mean_log_odds
from ali_fast.parallel import World
from ali_fast.pixels import to_x
from ali_fast.players import PLAYERS
from ali_fast.presets import Preset
from ali_fast.record import FIXED_IMAGES, Follower, Recorder
from ali_fast.run_directory import RunDirectory
from ali_fast.seeds import seed_of
from ali_fast.signals import Signals
from ali_fast.step import Step

MOST_ELEMENTS = 2**31 - 1  # of a tensor: the kernels count in int32; D sees each image and a made one
BIAS_IMAGES = 500  # whose mean sets the decoder's output bias
TICKS_A_RUN, MOST_TICK_IMAGES = 50, 100_000


def train(config: TrainConfig, console: Console) -> dict[str, Any]:
    """Train, or resume, the run of `config` in its run directory; returns its last tick's line ({} if none was due).

    Of several processes (ali_fast.parallel) the first one speaks and writes.

    The data must have been prepared. Raises InputError for what cannot be used, DivergedError when losses or weights
    are no longer finite, Interrupted after SIGINT or SIGTERM.
    """
    config = config.resolved()
    with parallel.world(config.device) as world:
        where = decide.device(config.device).device
        config = dataclasses.replace(config, device="cuda" if where.type == "cuda" else "cpu")
        preset = presets.resolve(config.dataset, config.preset)
        assert config.run_dir is not None
        run = RunDirectory(config.run_dir)
        if not world.first:
            return _train(config, preset, where, run, Console(quiet=True), world)
        with run.locked():
            run.adopt(config)
            write_text(run.environment, json.dumps(environment.collect(), indent=2) + "\n")
            return _train(config, preset, where, run, console, world)


def _train(
    config: TrainConfig, preset: Preset, where: torch.device, run: RunDirectory, console: Console, world: World
) -> dict[str, Any]:
    loader = open_training_data(config, preset, world)
    valid = first_samples(beton_path(config.data_dir, config.dataset, preset.valid_split), FIXED_IMAGES)
    dtype, why = decide.dtype(config.amp, where)
    if decide.SLOW_BF16 in why:
        console.print(f"warning: {why}")
    conditions = {
        "image_shape": list(loader.manifest.shape),
        "train_images": loader.manifest.count,
        "train_sha256": loader.manifest.sha256[:16],
        "dtype": str(dtype),
        "processes": world.size,
    }
    labelled, test = None, None
    if config.labels is not None:
        labelled, test = labelled_and_test(config, preset, where)
        conditions["classes"] = len(loader.manifest.classes)
    condition = None
    if PLAYERS[config.objective].conditional:
        condition = Condition.of(loader.manifest, loader.beton.path)
        conditions["condition"] = condition.to_json()
    resident, why = decide.resident(config.data, where, resident_bytes(loader.manifest))
    console.print(f"training images: {'held on the device' if resident else 'streamed'} ({why})")
    source = Source(loader, where, resident, conditional=condition is not None)
    decoder = frozen_decoder(config, preset, run)
    step = build_step(config, preset, loader, source, where, dtype, console, world, decoder, labelled, condition)
    seconds, resumed = restore(step, run, conditions, console)
    total = total_steps(config, len(loader))
    live = LiveLine(
        console,
        total_steps=total,
        steps_per_epoch=len(loader),
        start_step=step.steps,
        session_seconds=config.minutes and config.minutes * 60,
    )
    with contextlib.ExitStack() as stack:
        signals = stack.enter_context(Signals())
        recorder: Recorder | Follower
        if not world.first:
            recorder = Follower(step)
        else:
            assert config.batch_size is not None
            recorder = Recorder(
                run,
                step,
                conditions=conditions,
                valid=valid.images,
                valid_y=None if condition is None else y_of(valid),
                batch_size=config.batch_size,
                steps_per_epoch=len(loader),
                keep=config.keep,
                seconds_before=seconds,
                live=stack.enter_context(live),
                wait=source.wait,
                test=test,
            )
        stack.enter_context(contextlib.closing(recorder))
        if resumed:
            recorder.restored()
        else:
            recorder.save()  # room and rights are seen now, not after the first hour
        if step.steps >= total:
            console.print(f"already at step {step.steps} of {total}: a larger --epochs or --steps trains on")
        try:
            with contextlib.closing(source.batches(step.steps)) as batches:
                loop(config, step, batches, total, recorder, signals)
        except DamagedError:  # the data was cut under the run: what was learned from it so far is good
            if world.size == 1:  # else the others are in the step still
                recorder.save()
            raise
        if signals.received is None:
            finish(step, recorder)
        else:
            recorder.save()
            console.print(f"saved step {step.steps}: the same command resumes")
            raise Interrupted(signals.received)
    return recorder.last_line


def loop(
    config: TrainConfig,
    step: Step,
    batches: Iterator[Batch],
    total: int,
    recorder: Recorder | Follower,
    signals: Signals,
) -> None:
    """Train until `total` steps, the session's end, or a signal. What one process is moved to, all do at that step."""
    steps_per_tick = tick_steps(config, total)
    started = step.steps
    end = float("inf")
    while step.steps < total:
        signum, over, due = step.world.greatest(
            signals.received or 0, time.perf_counter() >= end, recorder.save_is_due()
        )
        if signum or over:
            signals.received = signum or None
            break
        if due:
            recorder.save()
        with nvtx.annotate("data wait"):
            batch = next(batches)
        with nvtx.annotate("step"):
            step(*batch)
        recorder.advance()
        if step.steps == started + 1:  # it may have compiled: until now there was nothing to save
            signals.arm()
            if config.minutes:  # of training: they begin now
                end = time.perf_counter() + config.minutes * 60
        tick, rest = divmod(step.steps, steps_per_tick)
        if rest == 0:
            recorder.tick()
        if rest == 0 and tick % config.checkpoint_ticks == 0:
            recorder.save()
        if rest == 0 and tick % config.figure_ticks == 0:
            recorder.draw()


def finish(step: Step, recorder: Recorder | Follower) -> None:
    """The end of a bounded run: whatever the cadence, a last tick, a checkpoint and figures."""
    if step.summed:
        recorder.tick()
    recorder.save()
    recorder.draw()


def open_training_data(config: TrainConfig, preset: Preset, world: World) -> BetonLoader:
    """Raises InputError: a file missing or damaged, a batch larger than the set, images that do not fit the preset."""
    assert config.batch_size is not None
    batch_size = world.batch(config.batch_size)
    loader = BetonLoader(
        beton_path(config.data_dir, config.dataset, preset.train_split),
        batch_size=batch_size,
        seed=config.seed,
        rank=world.rank,
        world=world.size,
    )
    shape, architecture = loader.manifest.shape, preset.architecture
    size, channels = architecture.image_size, architecture.image_channels
    if len(shape) != 3 or max(shape[:2]) > size or shape[2] != channels:
        raise InputError(
            f"preset {preset.name} takes images of at most {size}x{size}x{channels}; "
            f"those of {loader.beton.path} are {'x'.join(map(str, shape))}"
        )
    most = MOST_ELEMENTS // (architecture.largest_map * (3 if PLAYERS[config.objective].classes else 2))
    if batch_size > most:
        raise InputError(f"--batch-size {config.batch_size}: preset {preset.name} takes at most {most} on one device")
    return loader


def build_step(
    config: TrainConfig,
    preset: Preset,
    loader: BetonLoader,
    source: Source,
    where: torch.device,
    dtype: torch.dtype,
    console: Console,
    world: World,
    decoder: dict[str, Tensor] | None = None,
    labelled: Labelled | None = None,
    condition: Condition | None = None,
) -> Step:
    """Networks from the seed (a frozen decoder as given), the output bias from the data, the Adams."""
    assert config.learning_rate is not None
    torch.manual_seed(seed_of("training", config.seed, *([] if world.first else [world.rank])))
    model = ALI(
        preset.architecture,
        kernels.resolve(config.kernels, decide.device_class(where)),
        config.objective,
        deterministic=config.encoder == "deterministic",
        classes=None if labelled is None else len(loader.manifest.classes),
        y_dim=None if condition is None else len(condition.names),
    )
    x = to_x(loader.some_images(BIAS_IMAGES), preset.architecture.image_size)
    model.initialize(torch.Generator().manual_seed(config.seed), mean_log_odds(x))
    if decoder is not None:
        model.decoder.load_state_dict(decoder)
    compiles, why = decide.compiles(config.compile)
    if config.compile:
        console.print("compiling the step" if compiles else f"warning: {why}: training eagerly, which is slower")
    process.set_up(where)
    world.share(model.to(where))
    return Step(
        model,
        learning_rate=config.learning_rate,
        betas=(preset.beta1, preset.beta2),
        dtype=dtype,
        compile=compiles,
        cuda_graph=config.cuda_graphs and where.type == "cuda",
        samples=source.samples,
        samples_y=source.samples_y,
        labelled=labelled,
        ema=config.ema,
        world=world,
    )


def labelled_and_test(config: TrainConfig, preset: Preset, where: torch.device) -> tuple[Labelled, Labelled]:
    """The images whose labels a semi-supervised run knows, and those its error is followed on, of its test split.

    Raises InputError where labels are missing or too few.
    """
    assert config.labels is not None
    known = BetonLoader(beton_path(config.data_dir, config.dataset, preset.labelled_split), batch_size=1)
    labelled = labelled_subset(known, config.labels, preset.pool(known.manifest.count), config.seed, where)
    test = BetonLoader(beton_path(config.data_dir, config.dataset, preset.test_split), batch_size=1).read_all()
    assert test.labels is not None
    return labelled, Labelled(test.images, test.labels)


def frozen_decoder(config: TrainConfig, preset: Preset, run: RunDirectory) -> dict[str, Tensor] | None:
    """Of --decoder-from, for a run that begins: one that resumes has it in its checkpoint.

    Raises InputError where there is none, or another architecture's.
    """
    if config.decoder_from is None or checkpoint.list_checkpoints(run.checkpoints):
        return None
    trained, wanted = api.load(config.decoder_from, device="cpu").model, preset.architecture
    found = trained.architecture
    if (found.z_dim, found.slope, found.decoder) != (wanted.z_dim, wanted.slope, wanted.decoder):
        raise InputError(
            f"--decoder-from {config.decoder_from}: its decoder is not that of preset {preset.name}; "
            f"name a run of that preset, or train with the run's own by --preset"
        )
    return trained.decoder.state_dict()


def restore(step: Step, run: RunDirectory, conditions: dict[str, Any], console: Console) -> tuple[float, bool]:
    """Load the newest good checkpoint into `step`; returns the seconds trained before and whether there was one.

    Raises InputError for a checkpoint of another network, data set or arithmetic, and where processes find others.
    """
    found = checkpoint.read_newest(run.checkpoints, warn=lambda line: console.print(line, soft_wrap=True))
    steps = -1 if found is None else found[1]["step"]["steps"]
    most, least = step.world.greatest(steps, -steps)
    if most != -least:
        raise InputError(
            f"--run-dir {run.path}: not all processes find the same checkpoints there; share it among them"
        )
    if found is None:
        return 0.0, False
    path, state = found
    checkpoint.check_same_network(state["step"]["model"], step.model.state_dict(), path)
    was = conditions | state["conditions"]  # what an older version did not write down is not compared
    if differing := [f"{k}: {was[k]} -> {v}" for k, v in conditions.items() if was[k] != v]:
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
