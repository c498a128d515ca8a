"""Raw bytes put aside on disk: written once, then read at random, lazily, by any number of processes.

Compressed sources (a .tar.gz, a .mat) cannot be read at random, and SVHN's extra split is 1.6 GB once unpacked: from
a file a reader takes one image at a time, and nothing grows with the data set but the system's page cache.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
import weakref
from pathlib import Path
from typing import BinaryIO

from ali_fast.errors import InputError

PREFIX = ".spool-"


class Spool:
    """A temporary file in `folder`, deleted with this object or at exit; after a kill, by the next Spool there.

    Pickles as its path: a copy in another process reads the same file and never deletes it.
    """

    def __init__(self, folder: Path):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _sweep(folder)
            handle, name = tempfile.mkstemp(prefix=PREFIX, dir=folder)
        except OSError as error:
            raise InputError(f"cannot write to {folder}: {error.strerror}; use another --data-dir") from None
        fcntl.flock(handle, fcntl.LOCK_EX)  # held while this process lives: tells a leftover from one in use
        self.path = Path(name)
        self.size = 0
        self._file = os.fdopen(handle, "wb", buffering=0)
        weakref.finalize(self, _delete, self.path, self._file, os.getpid())

    def __getstate__(self) -> dict[str, object]:
        return {"path": self.path, "size": self.size}

    def write(self, data: bytes, offset: int | None = None) -> None:
        """Put `data` at `offset`, by default after what lies last."""
        at = self.size if offset is None else offset
        view = memoryview(data)
        try:
            while view:
                written = os.pwrite(self._file.fileno(), view, at)
                view, at = view[written:], at + written
        except OSError as error:
            raise InputError(
                f"cannot write to {self.path.parent}: {error.strerror}; free space or use another --data-dir"
            ) from None
        self.size = max(self.size, at)

    def read(self, offset: int, size: int) -> bytes:
        """`size` bytes at `offset`."""
        return read_at(self.path, offset, size)


def read_at(path: Path, offset: int, size: int) -> bytes:
    """`size` bytes of a file, opened for this one read: no state to share between processes (10 us a call)."""
    try:
        with open(path, "rb", buffering=0) as file:
            file.seek(offset)
            data = file.read(size)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    if len(data) != size:
        raise InputError(f"{path}: cut short: {len(data)} of {size} bytes at byte {offset}")
    return data


def _sweep(folder: Path) -> None:
    """Delete what killed runs left: files nobody holds the lock of."""
    for path in folder.glob(PREFIX + "*"):
        try:
            with path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
        except OSError:  # in use, or another process was quicker
            continue


def _delete(path: Path, file: BinaryIO, owner: int) -> None:
    if os.getpid() == owner:  # a forked reader inherits this callback, but not the file
        path.unlink(missing_ok=True)
        file.close()
