"""A run's directory: one training at a time, one configuration for good, everything under known names."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import filelock

from ali_fast import config as configuration
from ali_fast.config import TrainConfig
from ali_fast.errors import InputError
from ali_fast.files import write_text

T = TypeVar("T")


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
            lock.release()

    def read_config(self) -> TrainConfig:
        """The run's configuration. Raises InputError if there is none to read."""
        return self.parsed(configuration.from_json)

    def parsed(self, parse: Callable[[str], T]) -> T:
        """config.json as `parse` takes its text. Raises InputError if it is not there, or damaged."""
        try:
            return parse(self.config.read_text())
        except (FileNotFoundError, NotADirectoryError):
            raise InputError(f"{self.path} is no run directory: it has no config.json") from None
        except ValueError as error:  # an InputError, and bytes that are not UTF-8
            raise InputError(f"{self.config}: {error}; restore it from a copy, or use another run directory") from error

    def adopt(self, config: TrainConfig) -> None:
        """Make this the run of `config`, or see that it is. Raises InputError naming the fields that differ.

        Until there is a checkpoint there is nothing to resume, and a mistyped flag binds nobody.
        """
        begun = self.config.exists() and any(self.checkpoints.glob("step-*.pt"))
        if begun and (fields := configuration.differences(self.read_config(), config)):
            raise InputError(
                f"{self.path} holds a run of another configuration ({'; '.join(fields)}): "
                f"give the same configuration to resume it, or another --run-dir"
            )
        for directory in (self.figures, self.checkpoints):
            directory.mkdir(exist_ok=True)
        write_text(self.config, configuration.to_json(config))
