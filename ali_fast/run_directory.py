"""A run's directory: one training at a time, one configuration for good, everything under known names."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import filelock

from ali_fast import config as configuration
from ali_fast.config import TrainConfig
from ali_fast.errors import InputError
from ali_fast.files import write_text

T = TypeVar("T")

TRAINING, MIXTURE = "checkpoints/step-*.pt", "*/checkpoints/step-*.pt"
"""Where a run of `train` has its checkpoints, and one of `mixture`, a folder a model."""


def is_export(path: Path) -> bool:
    """Whether `path` is what `ali-fast export` writes, and no run directory."""
    return (path / "decoder.safetensors").exists()


class RunDirectory:
    """The names in `path`. Creates nothing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.json"
        self.environment = path / "environment.json"
        self.metrics = path / "metrics.jsonl"
        self.tensorboard = path / "tensorboard"
        self.figures = path / "figures"
        self.checkpoints = path / "checkpoints"
        self.export = path / "export"
        self.evaluation = path / "evaluation"
        self.report = path / "report.html"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Create the directory and keep other trainings out while inside.

        Raises InputError if one is in, or where no run can be. The lock is the kernel's: it goes with the process,
        however that ends.
        """
        made = not self.path.exists()
        try:
            str(self.path).encode()  # TensorBoard takes no other name
            self.path.mkdir(parents=True, exist_ok=True)
        except UnicodeEncodeError:
            raise InputError(f"--run-dir {self.path}: its name is not UTF-8: give another") from None
        except (FileExistsError, NotADirectoryError):
            raise InputError(
                f"--run-dir {self.path}: a file is in its place: give a directory, or a new name"
            ) from None
        lock = filelock.FileLock(self.path / ".lock")
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            raise InputError(
                f"another training is running in {self.path}: wait for it or stop it, or give another --run-dir"
            ) from None
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                if made and [path.name for path in self.path.iterdir()] == [".lock"]:  # refused: nothing was written
                    (self.path / ".lock").unlink()
                    self.path.rmdir()
            lock.release()

    def read_config(self) -> TrainConfig:
        """The run's configuration. Raises InputError if there is none to read, and where it is no training's."""
        if is_export(self.path):
            raise InputError(f"{self.path} is an export, and a run is wanted: give the one that it was made of")
        self._refuse_other(TRAINING)
        return self.parsed(configuration.from_json)

    def parsed(self, parse: Callable[[str], T]) -> T:
        """config.json as `parse` takes its text. Raises InputError if it is not there, or damaged."""
        try:
            return parse(self.config.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            if self._kind() is not None:
                raise InputError(
                    f"{self.path} has checkpoints but no config.json: restore it, or use another run directory"
                ) from None
            raise InputError(f"{self.path} is no run directory: it has no config.json") from None
        except ValueError as error:  # an InputError, and bytes that are not UTF-8
            raise InputError(f"{self.config}: {error}; restore it from a copy, or use another run directory") from error

    def check(self, checkpoints: str, differences: Callable[[], list[str]]) -> None:
        """See that this is the run asked for, or none yet. Changes nothing.

        checkpoints: TRAINING or MIXTURE. differences: the fields in which config.json differs from what is asked for.
        Until there is a checkpoint there is nothing to resume, and a mistyped flag binds nobody.
        Raises InputError naming those fields, or where it is a run of the other command.
        """
        self._refuse_other(checkpoints)
        if self._kind() == checkpoints and (fields := differences()):
            raise InputError(
                f"{self.path} holds a run of another configuration ({'; '.join(fields)}): "
                f"give the same configuration to resume it, or another --run-dir"
            )

    def check_training(self, config: TrainConfig) -> None:
        """`check`, for a training of `config`."""
        self.check(TRAINING, lambda: configuration.differences(self.read_config(), config))

    def make_folders(self) -> None:
        for directory in (self.figures, self.checkpoints):
            directory.mkdir(exist_ok=True)

    def adopt(self, config: TrainConfig) -> None:
        """Make this the run of `config`."""
        self.make_folders()
        write_text(self.config, configuration.to_json(config))

    def _kind(self) -> str | None:
        """TRAINING or MIXTURE, whose run was begun here, or None. Runs that lie in folders of this one are not."""
        for folder in (self.path, self.checkpoints, *self.path.glob("*/checkpoints")):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                os.scandir(folder).close()  # glob passes over what it may not read, and there may be a run
        if any(self.path.glob(TRAINING)):
            return TRAINING
        ours = self.config.exists() or (self.path / "results.json").exists()
        return MIXTURE if ours and any(self.path.glob(MIXTURE)) else None

    def _refuse_other(self, checkpoints: str) -> None:
        if self._kind() not in (None, checkpoints):
            command = "mixture" if checkpoints == TRAINING else "train"
            raise InputError(f"{self.path} holds a run of ali-fast {command}: give another run directory")
