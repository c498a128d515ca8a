"""FFCV's file format (.beton, version 2) in bytes: written by data_prep, checked here before FFCV may touch a file.

    header         24 bytes: version u16, fields u16, page size u32, samples u64, allocation table's offset u64
    descriptors    1,041 bytes a field: type u8, name [16], arguments [1024]
    metadata       8 bytes a field and sample: a label or float itself, an array's offset in the file
    data           arrays; those of one sample lie together and never cross a page (a multiple of the page size)
    allocations    24 bytes an array: sample u64, offset u64, size u64

Source: ffcv 1.0.2 (types.py, fields/ndarray.py, memory_allocator.py). FFCV itself checks nothing: it follows offsets
wherever they lead and copies as many bytes as the table says, so all of this is checked first. NumPy only.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ali_fast.data import schema
from ali_fast.data.schema import Field, damaged
from ali_fast.errors import InputError

FFCV_VERSION = 2
PAGE_BYTES = 1 << 23
READ_BYTES = 1 << 23

HEADER = np.dtype(
    [("version", "<u2"), ("fields", "<u2"), ("page_bytes", "<u4"), ("samples", "<u8"), ("allocations", "<u8")]
)
DESCRIPTOR = np.dtype([("type", "u1"), ("name", "S16"), ("arguments", "u1", 1024)])
ALLOCATION = np.dtype([("sample", "<u8"), ("offset", "<u8"), ("size", "<u8")])
ARRAY_ARGUMENTS = np.dtype([("shape", "<u8", 32), ("type_length", "<u8")])


def arrays_of(fields: Sequence[Field]) -> list[Field]:
    """Those whose values lie among the data; the others' are in the metadata."""
    return [field for field in fields if field.kind == "array"]


def metadata_type(fields: Sequence[Field]) -> np.dtype:
    """One sample's metadata: eight bytes a field, by the fields' names."""
    types = {"float": "<f8", "int": "<i8", "array": "<u8"}
    return np.dtype([(field.name, types[field.kind]) for field in fields])


def descriptors(fields: Sequence[Field]) -> bytes:
    """The field descriptors."""
    table = np.zeros(len(fields), DESCRIPTOR)
    for row, field in zip(table, fields, strict=True):
        row["type"] = {"float": 0, "int": 1, "array": 4}[field.kind]
        row["name"] = field.name.encode()
        if field.kind == "array":
            arguments = np.zeros((), ARRAY_ARGUMENTS)
            dtype = json.dumps(np.dtype("u1").descr).encode()
            arguments["shape"][: len(field.shape)] = field.shape
            arguments["type_length"] = len(dtype)
            raw = arguments.tobytes() + dtype
            row["arguments"][: len(raw)] = np.frombuffer(raw, np.uint8)
    return table.tobytes()


def layout(count: int, fields: Sequence[Field], page_bytes: int = PAGE_BYTES) -> tuple[np.ndarray, int]:
    """(offset of each sample's data, uint64 [count]; the data's end), samples packed in order, none across a page."""
    sample_bytes = sum(field.size for field in arrays_of(fields))
    start = HEADER.itemsize + len(fields) * DESCRIPTOR.itemsize + count * metadata_type(fields).itemsize
    if not sample_bytes:
        return np.zeros(count, np.uint64), start
    if sample_bytes > page_bytes:
        raise InputError(
            f"an image of {sample_bytes} bytes is larger than a page of the file format ({page_bytes} bytes)"
        )
    first_page, first_offset = divmod(start, page_bytes)
    in_first = (page_bytes - first_offset) // sample_bytes
    index = np.arange(count, dtype=np.int64)
    page, slot = np.divmod(index - in_first, page_bytes // sample_bytes)
    later = (page + first_page + 1) * page_bytes + slot * sample_bytes
    offsets = np.where(index < in_first, start + index * sample_bytes, later).astype(np.uint64)
    return offsets, int(offsets[-1]) + sample_bytes


def digest(file: int | Path) -> str:
    """sha256 of a whole file, in hexadecimal."""
    with open(file, "rb", buffering=0, closefd=isinstance(file, Path)) as stream:
        stream.seek(0)
        return hashlib.file_digest(stream, "sha256").hexdigest()


class Beton:
    """A split, opened and checked; reads by offset, so that a file cut short later is an error and no signal.

    The open file stays the same one whatever happens to its name: `prepare --force` puts a new file beside it.

    Raises NotPreparedError if the split or its manifest is missing, DamagedError (file, fault, mending command) if
    anything but the pixels is wrong. `verify` reads the pixels too.

    Attributes: path, manifest, fd (an open file descriptor), metadata (structured [count], by field name).
    """

    def __init__(self, path: Path):
        self.path = path
        self.fd = -1
        # The writer takes the old manifest away before it renames: the same file after as before means a matching pair.
        while True:
            self.close()
            self.fd = _open(path)
            self.manifest = schema.read_manifest(path)
            if _is_open_as(self.fd, path):
                break
        status = os.fstat(self.fd)
        self._stamp = (status.st_size, status.st_mtime_ns)
        self.metadata = self._check()

    def close(self) -> None:
        """Closes the file."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __del__(self) -> None:
        self.close()

    def check_unchanged(self) -> None:
        """Raises DamagedError if the open file was cut or written to since it was opened."""
        status = os.fstat(self.fd)
        if (status.st_size, status.st_mtime_ns) != self._stamp:
            raise damaged(self.path, f"was changed while it was in use (now {status.st_size} bytes)")

    def verify(self) -> None:
        """Reads the whole file and compares its sha256 with the manifest's. Raises DamagedError."""
        if digest(self.fd) != self.manifest.sha256:
            raise damaged(self.path, "its content does not match the sha256 in its manifest")

    def arrays(self, name: str, start: int, stop: int) -> np.ndarray:
        """Samples [start, stop) of the array field `name` ("image" or "attributes"), in file order: uint8, owned."""
        shape = {field.name: field.shape for field in self.manifest.fields}[name]
        offsets = self.metadata[name][start:stop].astype(np.int64)
        out = np.empty((len(offsets), *shape), np.uint8)
        rows = out.reshape(len(offsets), math.prod(shape))
        for low, high, stride in _runs(offsets, rows.shape[1]):
            span = (high - low - 1) * stride + rows.shape[1]
            block = np.empty((high - low) * stride, np.uint8)
            self._read(int(offsets[low]), block.data[:span])
            rows[low:high] = block.reshape(high - low, stride)[:, : rows.shape[1]]
        return out

    def _read(self, offset: int, into: memoryview) -> None:
        done = 0
        while done < len(into):
            try:
                got = os.preadv(self.fd, [into[done:]], offset + done)
            except OSError as error:
                raise InputError(f"cannot read {self.path}: {error.strerror}") from None
            if got == 0:
                raise damaged(self.path, f"ends at {offset + done} bytes, before its data does")
            done += got

    def _table(self, dtype: np.dtype, count: int, offset: int) -> np.ndarray:
        table = np.empty(count, dtype)
        self._read(offset, table.view(np.uint8).data)
        return table

    def _check(self) -> np.ndarray:
        """Every number FFCV will follow, against the manifest and each other; returns the metadata."""
        manifest, size = self.manifest, self._stamp[0]
        if size != manifest.bytes:
            kind = "cut short" if size < manifest.bytes else "too long"
            raise damaged(self.path, f"{kind}: {size} bytes where its manifest says {manifest.bytes}")
        fields, arrays = manifest.fields, arrays_of(manifest.fields)
        columns = metadata_type(fields)
        data_start = HEADER.itemsize + len(fields) * DESCRIPTOR.itemsize + manifest.count * columns.itemsize
        table_start = size - manifest.count * len(arrays) * ALLOCATION.itemsize
        if table_start < data_start + manifest.count * sum(field.size for field in arrays):
            raise damaged(self.path, f"{size} bytes are too few for {manifest.count} samples")

        header: Any = self._table(HEADER, 1, 0)[0]
        wanted = {"version": FFCV_VERSION, "fields": len(fields), "samples": manifest.count, "allocations": table_start}
        if header["allocations"] == 0:
            raise damaged(self.path, "its writer did not finish it")
        for name, value in wanted.items():
            if header[name] != value:
                raise damaged(self.path, f"header: {name} is {header[name]}, should be {value}")
        page_bytes = int(header["page_bytes"])
        if page_bytes < 1 << 21 or page_bytes & (page_bytes - 1):
            raise damaged(self.path, f"header: page size {page_bytes} is not a power of two from 2 MiB")
        if self._table(DESCRIPTOR, len(fields), HEADER.itemsize).tobytes() != descriptors(fields):
            names = ", ".join(field.name for field in fields)
            raise damaged(self.path, f"its fields are not those of its manifest ({names})")

        metadata = self._table(columns, manifest.count, data_start - manifest.count * columns.itemsize)
        self._check_offsets(metadata, arrays, data_start, table_start)
        for field in fields:
            if field.kind == "float" and len(bad := np.flatnonzero(~np.isfinite(metadata[field.name]))):
                raise damaged(self.path, f"sample {bad[0]}: {field.name} is not finite")
        if manifest.classes:
            labels = metadata["label"]
            bad = np.flatnonzero((labels < 0) | (labels >= len(manifest.classes)))
            if len(bad):
                raise damaged(self.path, f"sample {bad[0]}: label {labels[bad[0]]} of {len(manifest.classes)} classes")
        return metadata

    def _check_offsets(self, metadata: np.ndarray, arrays: list[Field], start: int, end: int) -> None:
        """Each array's offset is in the allocation table, for this sample and size; none overlap or leave the data."""
        if not arrays:
            return
        table = self._table(ALLOCATION, self.manifest.count * len(arrays), end)
        # Ours are in order already (no need to sort); FFCV's own writer, with several workers, leaves them in blocks.
        if not (table["offset"][1:] > table["offset"][:-1]).all():
            table = table[np.argsort(table["offset"], kind="stable")]
        offsets, sizes = table["offset"], table["size"]
        ends = offsets + sizes
        outside = offsets[0] < start or offsets[-1] > end or (sizes > end).any() or ends[-1] > end  # no sum can wrap
        if outside or (ends[:-1] > offsets[1:]).any():
            raise damaged(self.path, "its allocation table has overlaps, or entries outside the data")
        seen = np.zeros(len(table), bool)
        for field in arrays:
            place = np.searchsorted(offsets, metadata[field.name])
            place[place == len(table)] = 0
            right = (offsets[place] == metadata[field.name]) & (sizes[place] == field.size)
            right &= table["sample"][place] == np.arange(len(metadata), dtype=np.uint64)
            if not right.all():
                raise damaged(
                    self.path, f"sample {np.flatnonzero(~right)[0]}: its {field.name} is not in the allocation table"
                )
            seen[place] = True
        if not seen.all():
            raise damaged(self.path, "its allocation table has entries of no sample")


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        line = schema.prepare_command(path)
        raise schema.NotPreparedError(f"{path} is not there; make it with: {line}") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None


def _is_open_as(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(fd))
    except FileNotFoundError:
        return False


def _runs(offsets: np.ndarray, size: int) -> Iterator[tuple[int, int, int]]:
    """Splits samples into (start, stop, stride): evenly spaced in the file, and few enough to read at once."""
    if not len(offsets):
        return
    steps = np.diff(offsets)
    stride = int(steps[0]) if len(steps) and size <= steps[0] <= 2 * size + 4096 else size
    breaks = np.flatnonzero(steps != stride) + 1
    most = max(1, READ_BYTES // stride)
    for low, high in zip([0, *breaks.tolist()], [*breaks.tolist(), len(offsets)], strict=True):
        for part in range(low, high, most):
            yield part, min(part + most, high), stride
