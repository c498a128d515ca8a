"""The step of a training: its networks with their Adams, and another run's decoder."""

from __future__ import annotations

import dataclasses

import torch
from rich.console import Console
from torch import Tensor

from ali_fast import api, checkpoint, decide, kernels, presets, process
from ali_fast.config import TrainConfig
from ali_fast.data.source import Source
from ali_fast.errors import InputError
from ali_fast.model import ALI, mean_log_odds
from ali_fast.parallel import World
from ali_fast.pixels import to_x
from ali_fast.presets import Preset
from ali_fast.run_directory import RunDirectory
from ali_fast.seeds import seed_of
from ali_fast.step import Step
from ali_fast.training_data import TrainingData

BIAS_IMAGES = 500  # whose mean sets the decoder's output bias


def check(config: TrainConfig) -> None:
    """See what can be seen of a training without its data; `config` is resolved. Raises InputError.

    The device, the kernels, the run directory, another run's decoder.
    """
    assert config.run_dir is not None
    where = decide.device(config.device).device
    kernels.resolve(config.kernels, decide.device_class(where))
    run = RunDirectory(config.run_dir)
    run.check_training(placed(config, where))
    frozen_decoder(config, presets.resolve(config.dataset, config.preset), run)


def placed(config: TrainConfig, where: torch.device) -> TrainConfig:
    """`config` with `--device auto` decided."""
    return dataclasses.replace(config, device="cuda" if where.type == "cuda" else "cpu")


def build_step(
    config: TrainConfig,
    preset: Preset,
    data: TrainingData,
    source: Source,
    dtype: torch.dtype,
    world: World,
    decoder: dict[str, Tensor] | None,
    console: Console,
) -> Step:
    """Networks from the seed (a frozen decoder as given), the output bias from the data, the Adams."""
    assert config.learning_rate is not None
    where = source.device
    torch.manual_seed(seed_of("training", config.seed, *([] if world.first else [world.rank])))
    model = ALI(
        preset.architecture,
        kernels.resolve(config.kernels, decide.device_class(where)),
        config.objective,
        deterministic=config.encoder == "deterministic",
        classes=None if data.labelled is None else len(data.loader.manifest.classes),
        y_dim=None if data.condition is None else len(data.condition.names),
    )
    x = to_x(data.loader.some_images(BIAS_IMAGES), preset.architecture.image_size)
    model.initialize(torch.Generator().manual_seed(config.seed), mean_log_odds(x))
    if decoder is not None:
        model.decoder.load_state_dict(decoder)
    compiles, why = decide.compiles(config.compile)
    if config.compile:
        console.print("compiling the step" if compiles else f"warning: {why}: training eagerly, which is slower")
    process.set_up(where)
    world.broadcast(model.to(where))
    captured = config.cuda_graphs and where.type == "cuda"
    # Without a graph the host, which has more to launch, would be late; several processes average all gradients first.
    can_overlap = captured and compiles and world.size == 1
    if config.overlap == "yes" and not can_overlap:
        raise InputError("--overlap yes: needs a GPU, --compile, --cuda-graphs and a single process; leave it at auto")
    overlap = can_overlap and decide.overlaps(config.overlap, where)[0]
    return Step(
        model,
        learning_rate=config.learning_rate,
        betas=(preset.beta1, preset.beta2),
        dtype=dtype,
        compile=compiles,
        cuda_graph=captured,
        samples=source.samples,
        samples_y=source.samples_y,
        labelled=data.labelled,
        ema=config.ema,
        overlap_weight_gradients=overlap,
        overlap_encoder=overlap and model.objective == "ali" and dtype != torch.float16,
        world=world,
    )


def frozen_decoder(config: TrainConfig, preset: Preset, run: RunDirectory) -> dict[str, Tensor] | None:
    """Of --decoder-from, for a run that begins: one that resumes has it in its checkpoint.

    Raises InputError where there is none, or another architecture's.
    """
    if config.decoder_from is None or checkpoint.list_checkpoints(run.checkpoints):
        return None
    trained, wanted = api.load(config.decoder_from, device="cpu").model, preset.architecture
    found = trained.architecture
    if trained.y_dim is not None:
        raise InputError(
            f"--decoder-from {config.decoder_from}: a conditional run's decoder has to be told y, which "
            f"{config.objective} does not; name a run of another objective"
        )
    if (found.z_dim, found.slope, found.decoder) != (wanted.z_dim, wanted.slope, wanted.decoder):
        raise InputError(
            f"--decoder-from {config.decoder_from}: its decoder is not that of preset {preset.name}; "
            f"name a run of that preset, or train with the run's own by --preset"
        )
    return trained.decoder.state_dict()
