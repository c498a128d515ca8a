"""The subcommands: each a dataclass whose fields are its flags, and what it does. Heavy imports sit inside `run`."""

from __future__ import annotations

import dataclasses
import json as json_module
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from ali_fast import config, presets, torchrun
from ali_fast.errors import InputError
from ali_fast.files import write_output


def write_json(path: Path | None, values: Any) -> None:
    """What `--json PATH` asks for. Raises InputError naming PATH if it cannot be written; what was there stays then."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)  # below a folder that the command has made: see check_outputs
        write_output(path, json_module.dumps(values, indent=2) + "\n")


def check_outputs(command: Any) -> None:
    """Raises InputError where `--json` or `--output` could not be written: before the work, and not after it.

    The folder has to be there, or to lie in one that the command makes.
    """
    if isinstance(command, Train) and command.json is not None:
        made = [command.resolved().run_dir, command.data_dir]
    else:
        made = [getattr(command, name, None) for name in ("run_dir", "data_dir")]
    for flag in ("json", "output"):
        path = getattr(command, flag, None)
        if path is None:
            continue
        if path.is_dir():
            raise InputError(f"--{flag} {path}: is a folder; name a file, such as {path / 'result'}")
        folder = path.parent
        inside = any(folder.absolute().is_relative_to(root.absolute()) for root in made if root is not None)
        if not folder.is_dir() and not inside:
            raise InputError(f"--{flag} {path}: there is no folder {folder}; make it, or name another")
        if flag == "output" and command.SUFFIX and path.suffix.lower() not in ("", command.SUFFIX):
            raise InputError(f"--output {path}: the picture is a PNG; name it {path.with_suffix(command.SUFFIX)}")


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
        from ali_fast.data.schema import knowing

        options: dict[str, Any] = {}
        for name, value in (("preset", self.preset), ("seed", self.seed)):
            if value is not None and self.dataset != "folder":
                raise InputError(f"--{name} {value}: only of a folder; other data sets are as they were published")
        if self.preset is not None:
            architecture = presets.resolve("folder", self.preset).architecture
            options = {"size": architecture.image_size, "channels": architecture.image_channels}
        if self.seed is not None:
            options["seed"] = self.seed
        with knowing(source=self.source, preset=self.preset):
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

        # Before torch is imported: a damaged file is said at once.
        if torchrun.first_process() and data_missing(resolved, verify=self.verify):
            from ali_fast import build

            build.check(resolved)  # now, and not after hours of downloading
            prepare(resolved.dataset, resolved.data_dir)

        from ali_fast import train
        from ali_fast.console import Steady

        line = train.train(resolved, Steady())
        if not torchrun.first_process():
            return
        assert resolved.run_dir is not None
        print(f"trained: pictures in {resolved.run_dir / 'figures'}, checkpoints in {resolved.run_dir / 'checkpoints'}")
        write_json(self.json, line)


def prepare_if_missing(resolved: config.TrainConfig) -> None:
    """The data of a training: there and whole, or prepared. Raises InputError as `data_missing`."""
    if data_missing(resolved):
        prepare(resolved.dataset, resolved.data_dir)


def data_missing(resolved: config.TrainConfig, *, verify: bool = False) -> bool:
    """Whether the data of a training have to be prepared. Raises InputError as `missing`, and for a folder's of another
    preset."""
    from ali_fast.data import schema

    preset = presets.resolve(resolved.dataset, resolved.preset)
    splits = [preset.train_split, preset.valid_split]
    with schema.knowing(preset=preset.name):
        absent = missing(resolved.dataset, resolved.data_dir, splits, verify=verify)
        if resolved.dataset == "folder":
            path = schema.beton_path(resolved.data_dir, "folder", preset.train_split)
            shape, size = schema.read_manifest(path).shape, preset.architecture.image_size
            if shape != (size, size, preset.architecture.image_channels):
                raise InputError(
                    f"{path} holds images of {'x'.join(map(str, shape))}, preset {preset.name} takes "
                    f"{size}x{size}x{preset.architecture.image_channels}; make it for this preset with: "
                    f"{schema.prepare_command(path, '--force')}"
                )
    return absent


def missing(dataset: str, data_dir: Path, splits: Sequence[str], *, verify: bool = False) -> bool:
    """Whether one of the splits is not there. Without torch.

    verify: read every byte. Raises InputError for a damaged one, which is never rebuilt unasked, and where a folder is
    missing: where its images are is not known here.
    """
    from ali_fast.data.beton import Beton
    from ali_fast.data.schema import NotPreparedError, beton_path

    try:
        for split in splits:
            beton = Beton(beton_path(data_dir, dataset, split))
            if verify:
                beton.verify()
    except NotPreparedError:
        if dataset == "folder":
            raise
        return True
    return False


def prepare(dataset: str, data_dir: Path) -> None:
    import data_prep

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
class Doctor:
    """Print versions, devices and compilers, and what will be used on this machine and why."""

    json: Path | None = None
    """Also write it all to this file."""

    def run(self) -> None:
        from ali_fast import doctor

        report = doctor.examine()
        print(doctor.to_text(report))
        write_json(self.json, report)


def at_least(least: int, **values: int | None) -> None:
    """Raises InputError for the flag of a value below `least`; None is a flag that was not given."""
    for name, value in values.items():
        if value is not None and value < least:
            raise InputError(f"--{name} {value}: must be at least {least}")
