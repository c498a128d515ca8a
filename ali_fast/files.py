"""Files that are there whole or not at all. The standard library and errors only."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from ali_fast.errors import InputError


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A name beside `path` to write to: it becomes `path` at the end, and nothing if that is not reached."""
    part = path.with_name(path.name + ".part")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    with whole(path) as part:
        part.write_text(text)


@contextlib.contextmanager
def output(path: Path) -> Iterator[Path]:
    """A name to write to what the user asked to have at `path`: it is there whole, or what was there stays.

    What is no regular file itself, such as /dev/stdout, a pipe or a link, is not replaced but written in place.
    Raises InputError naming `path` where it cannot be written.
    """
    try:
        with contextlib.nullcontext(path) if _stays(path) else whole(path) as name:
            yield name
    except BrokenPipeError:  # its reader has seen enough
        raise
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}; free some space, or name another") from error


def write_output(path: Path, text: str) -> None:
    """Raises InputError as `output`."""
    with output(path) as name:
        name.write_text(text)


def _stays(path: Path) -> bool:
    try:
        return not stat.S_ISREG(path.lstat().st_mode)
    except FileNotFoundError:
        return False
