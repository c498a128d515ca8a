"""Checkpoints: written whole or not at all, the newest N kept, a damaged one never taken.

A checkpoint is `step-00001234.pt`, a `torch.save` zip of tensors, numbers, strings and containers of them,
so `torch.load(path, weights_only=True)` reads it anywhere; `latest.pt` is a link to the newest. torch's own
reader does not look at the zip's CRC-32 sums, so a flipped bit would come back as a weight: `read` checks
every sum first.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from ali_fast.errors import InputError, Interrupted

FORMAT = 2
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NAME = re.compile(r"step-(\d{8,})\.pt")


class DamagedCheckpointError(Exception):
    """The file is cut, altered or no checkpoint of ours."""


def list_checkpoints(directory: Path) -> list[Path]:
    """The checkpoints in `directory`, newest first; `.part` files and others are not among them.

    Raises OSError for a directory that cannot be read: there may be some.
    """
    try:
        names = os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return []
    found = [(int(match[1]), directory / name) for name in names if (match := _NAME.fullmatch(name))]
    return [path for _, path in sorted(found, reverse=True)]


def save(directory: Path, step: int, state: Mapping[str, Any], *, keep: int) -> Path:
    """Write `state` as the checkpoint of `step`, point `latest.pt` at it, delete all but the newest `keep`.

    state: what `read` gives back; tensors, numbers, strings and containers of them.
    Killed at any moment, this leaves the previous checkpoints whole and no half file under a checkpoint's
    name.
    Raises InputError when the disk is full: the previous checkpoints are still there.
    """
    path = _path(directory, step)
    part = path.with_suffix(".part")
    try:
        with open(part, "wb") as file:
            write({"format": FORMAT, **state}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
        _point_latest_at(path)
        _sync_directory(directory)
    except BaseException as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        if not isinstance(error, OSError) or error.errno not in NO_SPACE:
            raise
        kept = list_checkpoints(directory)[:1]
        good = f"{kept[0].name} is the last good one" if kept else "none was written yet"
        raise InputError(
            f"no space left to write the checkpoint of step {step} in {directory}: {good}; "
            f"free some space and run the same command"
        ) from error
    _prune(directory, step, keep)
    return path


def delete(directory: Path, step: int) -> None:
    """Take the only checkpoint away, and the link to it."""
    (directory / "latest.pt").unlink()
    _path(directory, step).unlink()


def _path(directory: Path, step: int) -> Path:
    return directory / f"step-{step:08d}.pt"


def write(state: Mapping[str, Any], file: IO[bytes]) -> None:
    """torch.save. Where writing fails, torch's zip writer raises another error as it closes: raise the first."""
    try:
        torch.save(state, file)
    except RuntimeError as error:
        if isinstance(error.__context__, OSError | Interrupted | KeyboardInterrupt):
            raise error.__context__ from None
        raise


def _point_latest_at(path: Path) -> None:
    link = path.parent / "latest.pt.part"
    link.unlink(missing_ok=True)
    link.symlink_to(path.name)
    os.replace(link, path.parent / "latest.pt")


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _prune(directory: Path, step: int, keep: int) -> None:
    kept = 0
    for path in list_checkpoints(directory):
        later = int(_NAME.fullmatch(path.name)[1]) > step  # type: ignore[index]
        kept += not later  # a later one is a damaged one that this run fell back from: not one of the newest `keep`
        if later or kept > keep:
            path.unlink(missing_ok=True)
    for stale in directory.glob("step-*.part"):  # left by a killed run
        stale.unlink(missing_ok=True)


def read(path: Path) -> dict[str, Any]:
    """The state in the checkpoint at `path`, tensors on the CPU.

    Raises DamagedCheckpointError, OSError if the file cannot be read, InputError for another format's.
    """
    with path.open("rb") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                broken = archive.testzip()
            file.seek(0)  # what was checked, whatever has the name by now
            state = torch.load(file, map_location="cpu", weights_only=True) if broken is None else None
        except Exception as error:  # zipfile and torch raise many types on damaged bytes, none of them documented
            # EINVAL is of a seek to a damaged offset.
            unreadable = isinstance(error, OSError) and error.errno not in (None, errno.EINVAL)
            if unreadable or isinstance(error, MemoryError) or "memory" in str(error):  # torch raises types of its own
                raise
            raise DamagedCheckpointError(f"{type(error).__name__}: {' '.join(str(error).split())[:120]}") from error
    if broken is not None:
        raise DamagedCheckpointError(f"the checksum of {broken} is wrong")
    if not isinstance(state, dict) or "format" not in state:
        raise DamagedCheckpointError("it is no checkpoint of ali-fast")
    if state["format"] != FORMAT:
        raise InputError(
            f"{path} has checkpoint format {state['format']}; this version of ali-fast reads format {FORMAT}"
        )
    if "step" not in state:
        raise DamagedCheckpointError("it has no step")
    return state


def read_newest(directory: Path, *, warn: Callable[[str], None]) -> tuple[Path, dict[str, Any]] | None:
    """The newest undamaged checkpoint and its path, or None where there is none at all.

    One `warn` line per damaged file passed over. Raises InputError when one cannot be read at all, and when there are
    checkpoints and all are damaged: starting again from nothing is not ours to decide.
    """
    paths = list_checkpoints(directory)
    for path in paths:
        try:
            state = read(path)
        except DamagedCheckpointError as error:
            warn(f"{path} is damaged ({error}): trying the one before it")
        except OSError as error:  # it may be good: to go on from the one before would end in its deletion
            if path not in list_checkpoints(directory):  # a training in there has written a newer one since
                return read_newest(directory, warn=warn)
            raise InputError(
                f"{path} cannot be read ({error.strerror}): see to it, or move it away to resume from the one before it"
            ) from error
        else:
            return path, state
    if paths:
        raise InputError(
            f"none of the {len(paths)} checkpoints in {directory} can be read; "
            f"restore one from a copy, or delete that directory to start again"
        )
    return None


def check_same_network(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], source: Path) -> None:
    """Raise InputError, naming the differences, unless `found` of `source` fits `expected`'s network."""
    differences = [f"it has no {name}" for name in expected if name not in found]
    differences += [f"it has {name}, which this network lacks" for name in found if name not in expected]
    differences += [
        f"{name} is {list(found[name].shape)} there and {list(tensor.shape)} here"
        for name, tensor in expected.items()
        if name in found and found[name].shape != tensor.shape
    ]
    if differences:
        more = f" (and {len(differences) - 3} more)" if len(differences) > 3 else ""
        raise InputError(
            f"{source} is a checkpoint of another network: {'; '.join(differences[:3])}{more}; "
            f"use the preset and the version of ali-fast it was trained with, or another run directory"
        )
