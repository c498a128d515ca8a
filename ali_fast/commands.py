"""The subcommands: each a dataclass whose fields are its flags, and what it does. Heavy imports sit inside `run`."""

from __future__ import annotations

import dataclasses
import json as json_module
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from ali_fast import config, presets
from ali_fast.errors import InputError

Output = Annotated[Path | None, arg(aliases=["-o"])]


def write_json(path: Path | None, values: Any) -> None:
    """What `--json PATH` asks for."""
    if path is not None:
        path.write_text(json_module.dumps(values, indent=2) + "\n")


@dataclass(frozen=True)
class Prepare:
    """Convert a data set, downloading it if need be, to DATA_DIR/NAME/SPLIT.beton with a manifest beside each."""

    dataset: Positional[str]
    """Which: digits, fashion-mnist, cifar10, svhn, celeba, imagenet64, folder or mixture."""
    source: Path | None = None
    """Files one already has; by default they are downloaded to where the result goes."""
    data_dir: Path = Path("data")
    """Where the result goes."""
    preset: str | None = None
    """Of a folder: the preset that will be trained, for its image size and channels."""
    seed: int | None = None
    """Of a folder: how its images are shuffled before they are split; by default 0."""
    force: bool = False
    """Convert again what is there."""
    check: bool = False
    """Only compare what is there with its manifest, byte by byte."""
    json: Path | None = None
    """Also write the manifests to this file."""

    def run(self) -> None:
        import data_prep

        options: dict[str, Any] = {}
        for name, value in (("preset", self.preset), ("seed", self.seed)):
            if value is not None and self.dataset != "folder":
                raise InputError(f"--{name} {value}: only of a folder; other data sets are as they were published")
        if self.preset is not None:
            architecture = presets.resolve("folder", self.preset).architecture
            options = {"size": architecture.image_size, "channels": architecture.image_channels}
        if self.seed is not None:
            options["seed"] = self.seed
        manifests = data_prep.prepare(
            self.dataset, source=self.source, data_dir=self.data_dir, force=self.force, check=self.check, **options
        )
        for manifest in manifests:
            print(f"{manifest.dataset} {manifest.split}: {manifest.count:,} images")
        write_json(self.json, [dataclasses.asdict(manifest) for manifest in manifests])


@dataclass(frozen=True, kw_only=True)
class Train(config.TrainConfig):
    """Train ALI on a data set, preparing it if it is not there. The same command again resumes."""

    verify: bool = False
    """First compare the data with its sha256, byte by byte."""
    json: Path | None = None
    """Also write the last tick's numbers to this file."""

    def __post_init__(self) -> None:
        """Checked in `run`: tyro would frame an error that is raised here."""

    def run(self) -> None:
        asked = {field.name: getattr(self, field.name) for field in dataclasses.fields(config.TrainConfig)}
        resolved = config.TrainConfig(**asked).resolved()

        prepare_if_missing(resolved, self.verify)  # before torch is imported: a damaged file is said at once

        from rich.console import Console

        from ali_fast import train

        console = Console(markup=False, highlight=False, emoji=False, soft_wrap=True)
        line = train.train(resolved, console)
        assert resolved.run_dir is not None
        print(f"trained: pictures in {resolved.run_dir / 'figures'}, checkpoints in {resolved.run_dir / 'checkpoints'}")
        write_json(self.json, line)


def prepare_if_missing(resolved: config.TrainConfig, verify: bool = False) -> None:
    """The data of a training: there and whole, or prepared. Raises InputError also for a folder's of another preset."""
    preset = presets.resolve(resolved.dataset, resolved.preset)
    splits = (preset.train_split, preset.valid_split)
    prepare_splits(resolved.dataset, resolved.data_dir, splits, device=resolved.device, verify=verify)
    if resolved.dataset == "folder":
        from ali_fast.data import schema

        path = schema.beton_path(resolved.data_dir, "folder", preset.train_split)
        shape, size = schema.read_manifest(path).shape, preset.architecture.image_size
        if shape != (size, size, preset.architecture.image_channels):
            raise InputError(
                f"{path} holds images of {'x'.join(map(str, shape))}, preset {preset.name} takes "
                f"{size}x{size}x{preset.architecture.image_channels}; make it for this preset with: "
                f"{schema.prepare_command(path, '--force')}"
            )


def prepare_splits(
    dataset: str, data_dir: Path, splits: tuple[str, ...], *, device: str = "auto", verify: bool = False
) -> None:
    """Check the splits, or prepare the data set if one is not there; a damaged one is never rebuilt unasked.

    Raises InputError. Without torch, unless something has to be prepared: `device` is looked at before that.
    """
    from ali_fast.data.beton import Beton
    from ali_fast.data.schema import NotPreparedError, beton_path

    try:
        for split in splits:
            beton = Beton(beton_path(data_dir, dataset, split))
            if verify:
                beton.verify()
    except NotPreparedError:
        if dataset == "folder":  # where its images are is not known here
            raise
        import data_prep
        from ali_fast import decide

        decide.device(device)  # absent CUDA is to be said before anything is downloaded
        print(f"preparing {dataset} in {data_dir / dataset}", flush=True)
        data_prep.prepare(dataset, data_dir=data_dir)


@dataclass(frozen=True, kw_only=True)
class Describe:
    """Print the networks as the paper's appendix does."""

    dataset: str
    """Data set the networks are for."""
    preset: str | None = None
    """Which of its presets; by default its own."""
    json: Path | None = None
    """Also write the description to this file."""

    def run(self) -> None:
        from ali_fast import describe

        description = describe.describe(presets.resolve(self.dataset, self.preset))
        print(describe.to_text(description))
        write_json(self.json, description)


@dataclass(frozen=True)
class Sample:
    """Draw images from the prior."""

    directory: Annotated[Positional[Path], arg(metavar="RUN")]
    """A run directory, or an export."""
    output: Output = None
    """The picture; by default samples.png here."""
    n: int = 100
    """How many."""
    columns: int = 10
    """In how many columns."""
    seed: int = 0
    """Of the noise."""

    def run(self) -> None:
        from ali_fast import figures, load

        at_least(1, n=self.n, columns=self.columns)
        images = load(self.directory).sample(self.n, self.seed).numpy()
        draw(figures.grid(images, self.columns), self.output or Path("samples.png"))


@dataclass(frozen=True)
class Reconstruct:
    """Draw images beside their reconstructions: originals in the odd columns."""

    directory: Annotated[Positional[Path], arg(metavar="RUN")]
    """A run directory, or an export."""
    images: Positional[tuple[Path, ...]] = ()
    """Image files or directories of them; by default the run's first validation images."""
    output: Output = None
    """The picture; by default reconstructions.png here."""
    n: int = 50
    """How many, at most."""
    json: Path | None = None
    """Also write the reconstruction error (mean squared difference, pixels in [0, 1]) to this file."""

    def run(self) -> None:
        from ali_fast import figures, load

        at_least(1, n=self.n)
        ali = load(self.directory)
        originals = originals_for(ali, self.directory, self.images, self.n)
        error = ali.reconstruction_error(originals)
        draw(
            figures.reconstructions(originals, ali.reconstruct(originals).numpy()),
            self.output or Path("reconstructions.png"),
        )
        print(f"reconstruction error {error:.5f} over {len(originals)} images")
        write_json(self.json, {"reconstruction_error": error, "images": len(originals)})


@dataclass(frozen=True)
class Interpolate:
    """Draw the way between pairs of images through the latent space, the originals at the ends."""

    directory: Annotated[Positional[Path], arg(metavar="RUN")]
    """A run directory, or an export."""
    images: Positional[tuple[Path, ...]] = ()
    """Image files or directories: first with second, third with fourth, ...; by default validation images."""
    output: Output = None
    """The picture; by default interpolations.png here."""
    n: int = 10
    """Pairs, at most."""
    steps: int = 8
    """Decoded images in each row."""
    seed: int = 0
    """Of the codes' noise."""

    def run(self) -> None:
        from ali_fast import figures, load

        at_least(1, n=self.n, steps=self.steps)
        ali = load(self.directory)
        originals = originals_for(ali, self.directory, self.images, 2 * self.n)
        if len(originals) < 2:
            raise InputError("interpolation needs at least two images")
        first, last = originals[: len(originals) // 2 * 2 : 2], originals[1::2]
        between = ali.interpolate(first, last, self.steps, self.seed).numpy()
        draw(figures.interpolations(first, between, last), self.output or Path("interpolations.png"))


@dataclass(frozen=True)
class Encode:
    """Infer the codes of images: an .npz with mu and log_sigma, float32 [N, L], and the file names."""

    directory: Annotated[Positional[Path], arg(metavar="RUN")]
    """A run directory, or an export."""
    images: Positional[tuple[Path, ...]]
    """Image files or directories of them; scaled and centre-cropped to the model's size."""
    output: Annotated[Path, arg(aliases=["-o"])] = Path("codes.npz")
    """Where the codes go."""

    def run(self) -> None:
        import numpy as np

        from ali_fast import load
        from ali_fast.pictures import list_pictures, read_pictures

        if not self.images:
            raise InputError("encode needs image files or directories after RUN")
        ali, files = load(self.directory), list_pictures(self.images)
        codes = ali.encode(read_pictures(files, ali.image_shape))
        with open(self.output, "wb") as file:  # np.savez would append .npz to another name
            np.savez(file, mu=codes.mu.numpy(), log_sigma=codes.log_sigma.numpy(), files=[str(f) for f in files])
        print(f"codes of {len(files)} images in {self.output}")


@dataclass(frozen=True)
class Export:
    """Write the newest checkpoint's networks to RUN/export as safetensors and a config.json."""

    directory: Annotated[Positional[Path], arg(metavar="RUN")]
    """A run directory."""

    def run(self) -> None:
        from ali_fast.api import export

        print(f"exported to {export(self.directory)}")


@dataclass(frozen=True)
class Doctor:
    """Print versions, devices and compilers, and what will be used on this machine and why."""

    json: Path | None = None
    """Also write it all to this file."""

    def run(self) -> None:
        from ali_fast import doctor

        report = doctor.examine()
        print(doctor.to_text(report))
        write_json(self.json, report)


def at_least(least: int, **values: int) -> None:
    for name, value in values.items():
        if value < least:
            raise InputError(f"--{name} {value}: must be at least {least}")


def draw(sheet: Any, path: Path) -> None:
    from ali_fast.figures import write_png

    write_png(sheet, path)
    print(f"drawn: {path}")


def originals_for(ali: Any, run: Path, images: tuple[Path, ...], most: int) -> Any:
    """uint8 [at most `most`, H, W, C]: the files given, else the run's first validation images."""
    from ali_fast.pictures import list_pictures, read_pictures

    if images:
        return read_pictures(list_pictures(images)[:most], ali.image_shape)
    from ali_fast.run_directory import RunDirectory
    from ali_fast.train import first_images

    trained = RunDirectory(run).read_config()
    split = presets.resolve(trained.dataset, trained.preset).valid_split
    return first_images(trained.data_dir, trained.dataset, split, most).numpy()
