"""What subcommands ask of their flags alike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ali_fast.config import TrainConfig
from ali_fast.errors import InputError
from ali_fast.files import write_output


def at_least(least: int, **values: int | None) -> None:
    """Raises InputError for the flag of a value below `least`; None is a flag that was not given."""
    for name, value in values.items():
        if value is not None and value < least:
            raise InputError(f"--{name} {value}: must be at least {least}")


def check_outputs(command: Any) -> None:
    """Raises InputError where `--json` or `--output` could not be written: before the work, and not after it.

    The folder has to be there, or to lie in one that the command makes.
    """
    resolved = command.resolved() if isinstance(command, TrainConfig) else command
    made = [getattr(resolved, name, None) for name in ("run_dir", "data_dir")]
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


def write_json(path: Path | None, values: Any) -> None:
    """What `--json PATH` asks for. Raises InputError naming PATH if it cannot be written; what was there stays then."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)  # below a folder that the command has made: see check_outputs
        write_output(path, json.dumps(values, indent=2) + "\n")
