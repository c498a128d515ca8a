"""Files that are there whole or not at all. The standard library and errors only."""

from __future__ import annotations

import contextlib
import glob
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from ali_fast.errors import InputError

STALE_SECONDS = 3600.0  # after which a half file that nobody wrote to was left by a killed process


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A name beside `path` to write to: it becomes `path` at the end, and nothing if that is not reached.

    The name is nobody else's: of two who write `path` at once, the last to end has it.
    """
    _clear_stale(path)
    part = path.with_name(f"{path.name}.{os.urandom(4).hex()}.part")
    try:
        yield part
        os.replace(part, path)
    except OSError as error:
        if error.filename is None:  # of a write: where is what the user can see to
            error.filename = str(path)
        raise
    finally:
        part.unlink(missing_ok=True)


def _clear_stale(path: Path) -> None:
    """By age, as a process cannot be asked after from another machine or container."""
    for part in path.parent.glob(f"{glob.escape(path.name)}.{'[0-9a-f]' * 8}.part"):
        with contextlib.suppress(OSError):
            if time.time() - part.stat().st_mtime > STALE_SECONDS:
                part.unlink()


def write_text(path: Path, text: str) -> None:
    """As UTF-8, with a "?" for what is no Unicode: a file's name may be any bytes."""
    with whole(path) as part:
        part.write_text(text, encoding="utf-8", errors="replace")


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
        name.write_text(text, encoding="utf-8", errors="replace")


def _stays(path: Path) -> bool:
    try:
        return not stat.S_ISREG(path.lstat().st_mode)
    except FileNotFoundError:
        return False
