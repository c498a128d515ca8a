"""Where many images' bytes are, compactly enough for ImageNet: loose files under a folder, or ranges of tar archives.

Both have `names` and `read(i) -> (bytes, name)`, open what they read anew each time, and so may be read from any
process; both pickle.
"""

from __future__ import annotations

import hashlib
import os
from array import array
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ali_fast.errors import InputError
from ali_fast.images import MAX_FILE_BYTES, read_image_file
from data_prep.archives import Range, tar_ranges
from data_prep.printable import printable
from data_prep.spool import read_at

READERS, READ_AHEAD = 8, 256  # threads, which wait for the disk together; files given to them at once


class Names:
    """Many strings as one run of bytes: 8 bytes and its length each, where a str takes 49 more."""

    def __init__(self, names: Iterable[str]):
        run, ends = bytearray(), array("q")
        for name in names:
            run += os.fsencode(name)
            ends.append(len(run))
        self._run, self._ends = bytes(run), np.frombuffer(ends, np.int64)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> str:
        start = int(self._ends[index - 1]) if index else 0
        return os.fsdecode(self._run[start : int(self._ends[index])])

    def label(self, index: int) -> str:
        """The name for an error of one line."""
        return printable(self[index])

    def sha256(self) -> str:
        return hashlib.sha256(self._run + self._ends.tobytes()).hexdigest()


@dataclass(frozen=True)
class Loose:
    """Files under `folder`; a name is the path from there."""

    folder: Path
    names: Names

    def read(self, index: int) -> tuple[bytes, str]:
        label = self.names.label(index)
        return read_image_file(self.folder / self.names[index], label), label

    def sha256(self) -> str:
        """What identifies them without reading them: the sha256 of their names and sizes."""
        digest = hashlib.sha256()
        for index in range(len(self.names)):
            name = self.names[index]
            try:
                size = (self.folder / name).stat().st_size
            except OSError as error:
                raise InputError(f"image {self.names.label(index)}: cannot be read: {error.strerror}") from None
            digest.update(os.fsencode(f"{name}\0{size}\n"))
        return digest.hexdigest()

    def contents_sha256(self) -> str:
        """What identifies them to the last byte: the sha256 of their names and each one's own. Reads them all."""
        digest = hashlib.sha256()
        with ThreadPoolExecutor(READERS) as readers:
            for start in range(0, len(self.names), READ_AHEAD):  # map would hold all that it is given
                block = range(start, min(start + READ_AHEAD, len(self.names)))
                for index, own in zip(block, readers.map(self._own_sha256, block), strict=True):
                    digest.update(os.fsencode(f"{self.names[index]}\0") + own)
        return digest.hexdigest()

    def _own_sha256(self, index: int) -> bytes:
        try:
            with (self.folder / self.names[index]).open("rb", buffering=0) as file:
                return hashlib.file_digest(file, "sha256").digest()  # in pieces: a file may be large
        except OSError as error:
            raise InputError(f"image {self.names.label(index)}: cannot be read: {error.strerror}") from None


@dataclass(frozen=True)
class Packed:
    """Members of uncompressed tars."""

    tars: tuple[Path, ...]
    names: Names
    places: np.ndarray  # int64 [N, 3]: which tar, offset, size

    @staticmethod
    def of(tars: tuple[Path, ...], members: Iterable[tuple[int, Range]]) -> Packed:
        """From (which tar, member) pairs."""
        places = array("q")

        def named() -> Iterable[str]:
            for which, member in members:
                places.extend((which, member.offset, member.size))
                yield member.name

        names = Names(named())
        return Packed(tars, names, np.frombuffer(places, np.int64).reshape(-1, 3))

    def read(self, index: int) -> tuple[bytes, str]:
        tar, offset, size = self.places[index].tolist()
        return read_at(self.tars[tar], offset, size), self.names.label(index)


def tar_members(tar: Path, start: int = 0, end: int | None = None, label: str = "") -> list[Range]:
    """The regular files of an uncompressed tar (or of the tar at bytes `start`..`end` inside it), sorted by name."""
    label = label or tar.name
    try:
        with tar.open("rb", buffering=0) as file:
            members = sorted(tar_ranges(file, label, start, tar.stat().st_size if end is None else end))
    except OSError as error:
        raise InputError(f"cannot read {tar}: {error.strerror}") from None
    for member in members:
        if member.size > MAX_FILE_BYTES:
            raise InputError(f"{label}: {member.name!r} of {member.size} bytes")
    return members
