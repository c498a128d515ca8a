"""Writes a data set's splits as .beton files with their manifests, so that they are either whole or not there.

FFCV's own writer waits for ever when a sample cannot be read, has another shape, or its worker is killed, and lays a
file out as its workers happen to run. This one writes the same format (ali_fast.data.beton) from one process, in the
samples' order: equal sources give equal bytes, a small set takes kilobytes, and any fault ends it with one error.
"""

from __future__ import annotations

import dataclasses
import errno
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ali_fast.data import beton, schema
from ali_fast.data.schema import Field, Manifest
from ali_fast.errors import InputError
from ali_fast.files import write_text
from data_prep import UNREADABLE
from data_prep.chunks import Fault, chunks
from data_prep.split import Split

TOLD = 3  # images that cannot be read, on one line
SYNC_BYTES = 1 << 26  # handed to the disk at once: no interrupt has to wait for more than these

Progress = Callable[[Manifest, int], object]  # the split being written (`bytes` as it will be), samples written


def write_splits(
    splits: Mapping[Path, Split],
    *,
    options: dict[str, Any] | None = None,
    progress: Progress = lambda manifest, done: None,
    workers: int | None = None,
) -> list[Manifest]:
    """Writes each DATA_DIR/NAME/SPLIT.beton and its manifest; when all are written, they replace what is there.

    The caller holds the data set's lock. `workers` processes read the samples; 0 reads them here; by default as many as
    there are processors if the first samples were slow. Raises InputError naming the sample that could not be read or
    is not what its split says, or the file that could not be written; what was there is left as it was then. Many that
    could not be read are listed in DATA_DIR/NAME/UNREADABLE, a name, a tab and what is wrong with it a line.
    """
    drafts = {path: _draft(split, path, options or {}) for path, split in splits.items()}
    try:
        _check_room(drafts)
        manifests: list[Manifest] = []
        faults: list[Fault] = []
        for path, split in splits.items():
            with _named(path, drafts[path].bytes):
                manifests.append(_write_parts(split, path, drafts[path], progress, workers, faults))
        if faults:
            raise _unreadable(faults, sum(split.count for split in splits.values()), next(iter(splits)).parent)
        # A beton without a manifest is an unfinished one: the old manifests go first, the new ones come last.
        for replace in (lambda path: schema.manifest_path(path).unlink(missing_ok=True), _place, _place_manifest):
            for path in splits:
                with _named(path):
                    replace(path)
        return manifests
    finally:
        for path in splits:
            with suppress(OSError):
                _part(path).unlink(missing_ok=True)
                _part(schema.manifest_path(path)).unlink(missing_ok=True)


def _draft(split: Split, path: Path, options: dict[str, Any]) -> Manifest:
    """The manifest as far as it is known before anything is read."""
    if split.count < 1:
        raise InputError(f"{path.parent.name}, {path.stem}: there is not one sample")
    draft = Manifest(
        dataset=path.parent.name,
        split=path.stem,
        count=split.count,
        shape=split.image_shape,
        classes=split.classes,
        attributes=split.attribute_names,
        bytes=0,
        sha256="",
        source_sha256=split.source_sha256,
        options=options,
    )
    fields = draft.fields
    _, end = beton.layout(split.count, fields)
    table = split.count * len(beton.arrays_of(fields)) * beton.ALLOCATION.itemsize
    return dataclasses.replace(draft, bytes=end + table)


def _check_room(drafts: Mapping[Path, Manifest]) -> None:
    for path, draft in drafts.items():
        with _named(path, draft.bytes):
            path.parent.mkdir(parents=True, exist_ok=True)
            if shutil.disk_usage(path.parent).free < sum(draft.bytes for draft in drafts.values()):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _unreadable(faults: list[Fault], count: int, folder: Path) -> InputError:
    faults = sorted(faults)
    told = "; ".join(f"{name}: {what}" for name, what in faults[:TOLD])
    if len(faults) > TOLD:
        write_text(folder / UNREADABLE, "".join(f"{name}\t{what}\n" for name, what in faults))
        told += f"; and so on: all of them are listed in {folder / UNREADABLE}"
    return InputError(f"{len(faults)} of {count} images cannot be read: {told}; mend them, or move them elsewhere")


def _write_parts(
    split: Split, path: Path, draft: Manifest, progress: Progress, workers: int | None, faults: list[Fault]
) -> Manifest:
    """The beton and its manifest, whole and on the disk, under names that say that they are not there yet.

    What of it could not be read is added to `faults`.
    """
    fields, arrays = draft.fields, beton.arrays_of(draft.fields)
    offsets, end = beton.layout(split.count, fields)
    part = _part(path)
    part.unlink(missing_ok=True)  # a file of its own: nobody who still holds the old one can write into this
    with part.open("xb") as file:
        metadata = np.empty(split.count, beton.metadata_type(fields))
        done = unsynced = 0
        with closing(chunks(split, fields, f"{draft.dataset}, {draft.split}", workers)) as read:
            for chunk in read:
                faults += chunk.faults
                rows = slice(done, done + len(chunk.metadata))
                metadata[rows] = chunk.metadata
                _fill_offsets(metadata[rows], arrays, offsets[rows])
                _write_blocks(file, chunk.arrays, offsets[rows].astype(np.int64))
                done, unsynced = rows.stop, unsynced + chunk.arrays.nbytes
                if unsynced >= SYNC_BYTES:
                    _sync(file)
                    unsynced = 0
                progress(draft, done)
        _write_tables(file, fields, metadata, arrays, end)
        _sync(file)
    assert part.stat().st_size == draft.bytes
    manifest = dataclasses.replace(draft, sha256=beton.digest(part))
    with _part(schema.manifest_path(path)).open("wb") as file:
        file.write(manifest.to_json().encode())
        _sync(file)
    return manifest


def _place(path: Path) -> None:
    _part(path).replace(path)


def _place_manifest(path: Path) -> None:
    _place(schema.manifest_path(path))


def _part(path: Path) -> Path:
    return path.with_name(path.name + ".part")


@contextmanager
def _named(path: Path, size: int = 0) -> Iterator[None]:
    """The system's refusals, as errors of the user's disk."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        advice = f"it takes {size / 1e6:,.1f} MB: free some, or use" if full else "use"
        raise InputError(f"cannot write {path}: {error.strerror}; {advice} another --data-dir") from None


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _fill_offsets(metadata: np.ndarray, arrays: list[Field], offsets: np.ndarray) -> None:
    for field in arrays:
        metadata[field.name] = offsets
        offsets = offsets + np.uint64(field.size)


def _write_blocks(file: BinaryIO, blocks: np.ndarray, offsets: np.ndarray) -> None:
    """Writes each run of adjacent samples at once; a run ends where the next page starts."""
    if not blocks.shape[1]:
        return
    breaks = (np.flatnonzero(np.diff(offsets) != blocks.shape[1]) + 1).tolist()
    for low, high in zip([0, *breaks], [*breaks, len(blocks)], strict=True):
        file.seek(offsets[low])
        file.write(blocks[low:high].data)


def _write_tables(
    file: BinaryIO, fields: tuple[Field, ...], metadata: np.ndarray, arrays: list[Field], end: int
) -> None:
    table = np.empty((len(metadata), len(arrays)), beton.ALLOCATION)
    for column, field in zip(table.T, arrays, strict=True):
        column["sample"], column["offset"] = np.arange(len(metadata)), metadata[field.name]
        column["size"] = field.size
    file.seek(end)
    file.write(table.tobytes())
    header = np.zeros(1, beton.HEADER)
    header["version"], header["fields"], header["samples"] = beton.FFCV_VERSION, len(fields), len(metadata)
    header["page_bytes"], header["allocations"] = beton.PAGE_BYTES, end
    file.seek(0)
    file.write(header.tobytes() + beton.descriptors(fields) + metadata.tobytes())
