"""The subcommands: each a dataclass whose fields are its flags, and what it does. Heavy imports sit inside `run`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from ali_fast import config, prepared, presets, torchrun
from ali_fast.errors import InputError
from ali_fast.flags import write_json


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
        if torchrun.first_process() and prepared.data_missing(resolved, verify=self.verify):
            from ali_fast import build

            build.check(resolved)  # now, and not after hours of downloading
            prepared.prepare(resolved.dataset, resolved.data_dir)

        from ali_fast import train
        from ali_fast.console import Steady

        line = train.train(resolved, Steady())
        if not torchrun.first_process():
            return
        assert resolved.run_dir is not None
        print(f"trained: pictures in {resolved.run_dir / 'figures'}, checkpoints in {resolved.run_dir / 'checkpoints'}")
        write_json(self.json, line)


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
