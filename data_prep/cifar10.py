"""CIFAR-10, its binary version (no pickle): 32x32 RGB, ten classes; train[0:45000] / train[45000:50000] / test.

Source: A. Krizhevsky, *Learning Multiple Layers of Features from Tiny Images* (2009); a record is one label byte, then
32x32 red, green and blue values, row by row; 10,000 records a file. The training files in order are the paper's order.
Never run here on the real archive: only on files made in its format.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ali_fast.errors import InputError
from data_prep.archives import open_gzip, read_range, tar_ranges
from data_prep.download import Published, obtain
from data_prep.split import Sample, Split
from data_prep.spool import Spool

# Size and sha256: TensorFlow Datasets, url_checksums/cifar10.txt. The publisher's page has the md5
# c32a1d4ab5d03f1284b67883e8d87530 for the same file.
ARCHIVE = Published(
    "cifar-10-binary.tar.gz",
    170_052_171,
    "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    "https://www.cs.toronto.edu/~kriz/",
)
FILES = (*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin")
FILE_RECORDS = 10_000
RECORD_BYTES = 1 + 3 * 32 * 32
VALID_RECORDS = 5_000
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def open_source(source: Path | None, downloads: Path) -> dict[str, Split]:
    """`source`: the archive, a folder that holds it, or a folder of the .bin files; without it, it is downloaded.

    Raises InputError: not there, not the published archive, a file of another size, a label above 9.
    """
    spool, digests, missing = Spool(downloads), {}, set(FILES)
    folder = _folder(source)
    if folder is None:
        path = obtain(ARCHIVE, source, downloads)
        digests[ARCHIVE.name] = ARCHIVE.sha256
        records_of = _archived(path)
    else:
        path = folder
        records_of = ((name, _read_file(path / name)) for name in FILES)
    for name, records in records_of:
        _check_labels(name, records)
        if folder:
            digests[name] = hashlib.sha256(records).hexdigest()
        spool.write(records, FILES.index(name) * len(records))
        missing.discard(name)
    if missing:
        raise InputError(f"{path}: no {', '.join(sorted(missing))} in it")
    train = (len(FILES) - 1) * FILE_RECORDS
    bounds = {
        "train": (0, train - VALID_RECORDS),
        "valid": (train - VALID_RECORDS, train),
        "test": (train, train + FILE_RECORDS),
    }
    return {
        split: Split(high - low, (32, 32, 3), _Reader(spool, low), CLASSES, source_sha256=digests)
        for split, (low, high) in bounds.items()
    }


def _folder(source: Path | None) -> Path | None:
    """The folder of .bin files, if that is what `source` is."""
    for folder in (source, source / "cifar-10-batches-bin") if source else ():
        if any((folder / name).exists() for name in FILES):
            return folder
    return None


def _archived(path: Path) -> Iterator[tuple[str, bytes]]:
    """(name, bytes) of those of FILES that are in the archive, in its order, one in memory at a time."""
    with open_gzip(path) as file:
        for member in tar_ranges(file, path.name, end=2 * len(FILES) * FILE_RECORDS * RECORD_BYTES):
            name = member.name.rpartition("/")[2]
            if name in FILES:
                _check_size(name, member.size)
                yield name, read_range(file, member, path.name)


def _read_file(path: Path) -> bytes:
    if not path.is_file():
        raise InputError(f"{path}: not there; all of {', '.join(FILES)} are needed")
    _check_size(path.name, path.stat().st_size)
    return path.read_bytes()


def _check_size(name: str, size: int) -> None:
    if size != FILE_RECORDS * RECORD_BYTES:
        raise InputError(f"{name}: {size} bytes, {FILE_RECORDS} records of {RECORD_BYTES} bytes are expected")


def _check_labels(name: str, records: bytes) -> None:
    labels = np.frombuffer(records, np.uint8)[::RECORD_BYTES]
    if labels.max() >= len(CLASSES):
        index = int(labels.argmax())
        raise InputError(f"{name}, image {index}: label {labels[index]}, should be 0 to {len(CLASSES) - 1}")


@dataclass(frozen=True)
class _Reader:
    spool: Spool
    first: int

    def __call__(self, index: int) -> Sample:
        record = np.frombuffer(self.spool.read((self.first + index) * RECORD_BYTES, RECORD_BYTES), np.uint8)
        return Sample(np.ascontiguousarray(record[1:].reshape(3, 32, 32).transpose(1, 2, 0)), int(record[0]))
