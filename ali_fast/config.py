"""What a training run was asked to do: one frozen dataclass, from which the flags are made. Standard library only."""

from __future__ import annotations

import dataclasses
import json
import os
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ali_fast import presets
from ali_fast.errors import InputError
from ali_fast.players import PLAYERS, Objective
from ali_fast.seeds import check_seed

FREE_ON_RESUME = frozenset(
    {
        "data_dir",
        "run_dir",
        "epochs",
        "steps",
        "minutes",
        "tick_images",
        "figure_ticks",
        "checkpoint_ticks",
        "keep",
        "data",
    }
)
"""Fields that may differ when a run is resumed: its length, its cadence, where things are, and where its batches come
from. Not whether there are CUDA graphs: without, it is another program, which draws other noise on a GPU."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Train ALI on a data set. The same command again resumes."""

    dataset: str
    """Data set to train on: digits, fashion-mnist, cifar10, svhn, celeba, imagenet64 or folder."""
    preset: str | None = None
    """Networks and hyperparameters; by default the data set's own."""
    objective: Objective = "ali"
    """The game: ali; gan, without codes; inverse (learned inverse mapping) or post-hoc inference of another run's
    decoder, which stays as it is; vae; semi-supervised, whose D tells K classes and made pairs apart;
    conditional, told the class or the attributes of each image."""
    labels: int | None = None
    """semi-supervised: of how many training images the label is known, equally many of each class, chosen by seed."""
    decoder_from: Path | None = None
    """Run directory or export whose decoder inverse and post-hoc infer."""
    encoder: Literal["stochastic", "deterministic"] = "stochastic"
    """z_hat ~ N(mu(x), sigma(x)^2), or mu(x) itself, which is BiGAN."""
    ema: float | None = None
    """Average E's and G's weights, of semi-supervised D's too, keeping this share of the average at each step (such as
    0.999), and draw, measure and export the average; by default the weights themselves."""
    data_dir: Path = Path("data")
    """Where the .beton files are (DATA_DIR/NAME/SPLIT.beton); prepared there if missing."""
    run_dir: Path | None = None
    """Where the run goes; by default runs/PRESET, of another objective than its own runs/PRESET-OBJECTIVE, of a folder
    runs/folder-PRESET."""
    seed: int = 0
    """Of the weights, the noise and the order of the images."""
    epochs: int | None = None
    """Length in passes over the data; by default the preset's."""
    steps: int | None = None
    """Length in updates, instead of epochs."""
    minutes: float | None = None
    """Stop after so many minutes of this session's training, whatever the length."""
    batch_size: int | None = None
    """Images per update, of all processes together; by default the preset's."""
    learning_rate: float | None = None
    """Of both Adams; by default the preset's."""
    amp: bool = False
    """Mixed precision: bf16 where the device has it, else fp16 with loss scaling."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto takes CUDA if there is any."""
    compile: bool = True
    """Compile the whole step with torch.compile."""
    kernels: str = "auto"
    """auto, triton, inductor or eager, or per op: batch_norm=triton,maxout=inductor."""
    data: Literal["auto", "stream", "resident"] = "auto"
    """Stream the training images, or hold them all on the device as uint8; the order is the same. auto holds them on
    CUDA where they take at most a quarter of the free memory."""
    cuda_graphs: bool = True
    """On CUDA, capture the whole step as one CUDA graph and replay it."""
    overlap: Literal["auto", "yes", "no"] = "auto"
    """In that graph run E beside G, and weight gradients beside both, for more memory: auto where that was measured to
    be faster."""
    tick_images: int | None = None
    """Images between two lines of metrics; by default about fifty lines a run, at most one per 100,000 images."""
    figure_ticks: int = 10
    """Ticks between two sets of figures."""
    checkpoint_ticks: int = 5
    """Ticks between two checkpoints."""
    keep: int = 3
    """Newest checkpoints to keep."""

    def __post_init__(self) -> None:
        if self.epochs is not None and self.steps is not None:
            raise InputError("--epochs and --steps both give the run's length: give one")
        if self.objective not in PLAYERS:
            raise InputError(f"--objective {self.objective}: one of {', '.join(PLAYERS)}")
        if PLAYERS[self.objective].frozen_decoder and self.decoder_from is None:
            raise InputError(
                f"--objective {self.objective} infers a trained decoder: name its run by --decoder-from RUN"
            )
        if self.decoder_from is not None and not PLAYERS[self.objective].frozen_decoder:
            inferring = " and ".join(name for name, players in PLAYERS.items() if players.frozen_decoder)
            raise InputError(f"--decoder-from {self.decoder_from}: only {inferring} take one, not {self.objective}")
        if PLAYERS[self.objective].classes and not (self.labels and self.labels > 0):
            raise InputError(f"--objective {self.objective} needs --labels, such as 1000: {self.labels} is given")
        if self.labels is not None and not PLAYERS[self.objective].classes:
            raise InputError(f"--labels {self.labels}: only --objective semi-supervised takes labels")
        if self.overlap not in ("auto", "yes", "no"):
            raise InputError(f"--overlap {self.overlap}: auto, yes or no")
        if self.encoder not in ("stochastic", "deterministic"):
            raise InputError(f"--encoder {self.encoder}: stochastic or deterministic")
        if self.encoder == "deterministic" and (not PLAYERS[self.objective].encoder or self.objective == "vae"):
            raise InputError(f"--encoder deterministic: {self.objective} has no such encoder")
        if self.ema is not None and not 0 < self.ema < 1:
            raise InputError(f"--ema {self.ema}: must be between 0 and 1, such as 0.999")
        for name in ("epochs", "steps", "minutes", "batch_size", "learning_rate"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise InputError(f"--{name.replace('_', '-')} {value}: must be a number above 0")
        if self.batch_size == 1:
            raise InputError("--batch-size 1: batch norm needs at least 2 images")
        for name in ("tick_images", "figure_ticks", "checkpoint_ticks", "keep"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"--{name.replace('_', '-')} {value}: must be at least 1")
        check_seed(self.seed)

    def resolved(self) -> TrainConfig:
        """With every default that the preset gives filled in. Raises InputError for an unknown preset."""
        preset = presets.resolve(self.dataset, self.preset, self.objective)
        name = preset.name if self.objective == preset.objective else f"{preset.name}-{self.objective}"
        if self.dataset == "folder":  # the preset is that of another data set
            name = f"{self.dataset}-{name}"
        return dataclasses.replace(
            self,
            preset=preset.name,
            run_dir=self.run_dir or Path("runs") / name,
            epochs=self.epochs or (None if self.steps else preset.epochs),
            batch_size=self.batch_size or preset.batch_size,
            learning_rate=self.learning_rate or preset.learning_rate,
        )


def to_json(config: TrainConfig) -> str:
    """Places absolute: the run may be opened from anywhere."""
    values = {k: str(v.absolute()) if isinstance(v, Path) else v for k, v in dataclasses.asdict(config).items()}
    return json.dumps(values, indent=2) + "\n"


def fields_of(text: str) -> dict[str, Any]:
    """The fields of a config.json as they were written. Raises InputError for text that is none."""
    try:
        values: Any = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"not a configuration: {error}") from error
    if not isinstance(values, dict):
        raise InputError("not a configuration: a JSON object is expected")
    return values


def from_json(text: str) -> TrainConfig:
    """Raises InputError for text that is not a configuration of this version."""
    values = fields_of(text)
    fields = {field.name for field in dataclasses.fields(TrainConfig)}
    if unknown := sorted(set(values) - fields):
        raise InputError(f"configuration with unknown fields {', '.join(unknown)}: written by another version?")
    for name, kind in typing.get_type_hints(TrainConfig).items():
        if name in values:
            if not _fits(values[name], kind):
                raise InputError(f"not a configuration: {name} is {json.dumps(values[name])}")
            if Path in (kind, *typing.get_args(kind)) and values[name] is not None:
                values[name] = Path(values[name])
    try:
        return TrainConfig(**values)
    except TypeError as error:
        raise InputError(f"not a configuration: {error}") from error


def _fits(value: Any, kind: Any) -> bool:
    """Whether JSON's `value` is of a field's type. Which texts and numbers are good is __post_init__'s to say."""
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        return any(_fits(value, one) for one in typing.get_args(kind))
    if kind is Path or typing.get_origin(kind) is Literal:
        return isinstance(value, str)
    if isinstance(value, bool):  # to Python an int
        return kind is bool
    return isinstance(value, (int, float) if kind is float else kind)


def differences(old: TrainConfig, new: TrainConfig) -> list[str]:
    """Fields that a resumed run may not change, as `name: old -> new`. A place may be spelled in another way."""
    fields = [field.name for field in dataclasses.fields(TrainConfig) if field.name not in FREE_ON_RESUME]
    values = [(name, getattr(old, name), getattr(new, name)) for name in fields]
    return [f"{name}: {a} -> {b}" for name, a, b in values if _place(a) != _place(b)]


def _place(value: Any) -> Any:
    return os.path.realpath(value) if isinstance(value, Path) else value
