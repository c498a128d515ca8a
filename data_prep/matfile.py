"""A strict reader of MATLAB 5 .mat files: numeric, character and structure arrays, plain or compressed.

Not scipy.io.loadmat: it allocates what a header claims, and the whole of a variable at once (SVHN's extra split is
1.6 GB). Here a variable's class and shape are looked at before its data, the data is streamed, and memory follows
the bytes that are there. Cells, objects, sparse and complex arrays are refused: no data set here has any.

Source: MathWorks, "MAT-File Format", level 5. Little-endian files only, as all the published ones are.
Every fault is an InputError naming the file.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from math import prod
from typing import BinaryIO

import numpy as np

from ali_fast.errors import InputError

MATRIX, COMPRESSED = 14, 15
STRUCT, CHAR = 2, 4
# Data types of the file (mi...) and classes of an array (mx...): a class may be stored in a narrower type.
STORED = {1: "i1", 2: "u1", 3: "<i2", 4: "<u2", 5: "<i4", 6: "<u4", 7: "<f4", 9: "<f8", 12: "<i8", 13: "<u8"}
CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
TEXT = {1: "latin-1", 2: "latin-1", 4: "utf-16-le", 16: "utf-8", 17: "utf-16-le"}
CHUNK = 1 << 20
MAX_DIMS, MAX_NAME, MAX_FIELDS = 8, 256, 64


class _Bytes:
    """What a variable is read from: `left` bytes of the file, inflated if need be; reads are exact or an error."""

    def __init__(self, file: BinaryIO, left: int, compressed: bool, label: str):
        self.file, self.left, self.label = file, left, label
        self.inflate = zlib.decompressobj() if compressed else None
        self.pending = b""

    def read(self, size: int) -> bytes:
        """At most CHUNK bytes."""
        data = self._inflated(size) if self.inflate else self._raw(size)
        if len(data) != size:
            raise InputError(f"{self.label}: damaged: a value ends early")
        return data

    def _raw(self, size: int) -> bytes:
        data = self.file.read(min(size, self.left))
        self.left -= len(data)
        return data

    def _inflated(self, size: int) -> bytes:
        assert self.inflate is not None
        parts, got = [], 0
        try:
            while got < size and not self.inflate.eof:
                data = self.pending or self._raw(CHUNK)
                part = self.inflate.decompress(data, size - got)
                self.pending = self.inflate.unconsumed_tail
                if not data and not part:
                    break
                parts.append(part)
                got += len(part)
        except zlib.error as error:
            raise InputError(f"{self.label}: damaged: {error}") from None
        return b"".join(parts)

    def finish(self) -> None:
        """Nothing may be left over, and a compressed variable's checksum must hold."""
        over = self._inflated(1) if self.inflate else self._raw(1)
        if over or (self.inflate and not self.inflate.eof):
            raise InputError(f"{self.label}: damaged: a variable's length is not what its header says")


class Variable:
    """One array: `name`, `kind` (the mx class number), `shape`; its data is read once, by one of the methods."""

    def __init__(self, source: _Bytes, size: int):
        self._source, self._left = source, size
        self.name = ""  # for faults before it is known
        self.kind, flags = self._header()
        if flags & 0x08:
            raise self._fault("complex numbers, which no data set here has")
        self.shape = self._shape()
        self.name = self._value((1,), MAX_NAME).decode("ascii", "replace")

    @property
    def dtype(self) -> np.dtype | None:
        """What MATLAB calls the class, for a numeric array."""
        return np.dtype(CLASSES[self.kind]) if self.kind in CLASSES else None

    def stream(self, write: Callable[[bytes], object]) -> None:
        """Pass a uint8 array's bytes to `write` in column-major order, at most CHUNK at a time."""
        stored, size, small = self._tag()
        if self.kind != 9 or stored != 2 or size != prod(self.shape):
            raise self._fault(f"its data is not {prod(self.shape)} values of uint8")
        for at in range(0, size, CHUNK):
            write(self._take(min(CHUNK, size - at)))
        self._pad(size, small)
        self._end()

    def values(self, max_count: int) -> np.ndarray:
        """A numeric array of `shape`, in its class's dtype; refused above `max_count` values."""
        count = prod(self.shape)
        if self.dtype is None or count > max_count:
            raise self._fault(f"not numbers, or more than {max_count}")
        data, stored = self._bytes(tuple(STORED), 8 * max_count)
        numbers = np.frombuffer(data[: len(data) - len(data) % np.dtype(STORED[stored]).itemsize], STORED[stored])
        if numbers.size != count or numbers.nbytes != len(data):
            raise self._fault(f"its data is not {count} values")
        self._end()
        with np.errstate(invalid="ignore"):
            return numbers.astype(self.dtype).reshape(self.shape, order="F")

    def text(self, max_bytes: int) -> str:
        """A character row."""
        if self.kind != CHAR:
            raise self._fault("not text")
        data, stored = self._bytes(tuple(TEXT), max_bytes)
        self._end()
        return data.decode(TEXT[stored], "replace")

    def structs(self, max_count: int) -> Iterator[tuple[str, Variable]]:
        """(field name, value) of a structure array, element by element; values not read are passed over."""
        if self.kind != STRUCT or prod(self.shape) > max_count:
            raise self._fault(f"not structures, or more than {max_count}")
        width_data = self._value((5,), 4)
        width = struct.unpack("<i", width_data)[0] if len(width_data) == 4 else 0
        if not 0 < width <= MAX_NAME:
            raise self._fault("a damaged structure")
        names = self._value((1,), MAX_FIELDS * width)
        raw = [names[at : at + width] for at in range(0, len(names), width)]
        fields = [name.split(b"\0")[0].decode("ascii", "replace") for name in raw]
        for _ in range(prod(self.shape)):
            for field in fields:
                kind, size, small = self._tag()
                if kind != MATRIX or small or size > self._left:
                    raise self._fault("a damaged structure")
                self._left -= size
                if size:  # an empty value may have no header at all
                    value = Variable(self._source, size)
                    yield field, value
                    value.skip()
        self._end()

    def skip(self) -> None:
        """Pass over what has not been read."""
        while self._left:
            self._take(min(CHUNK, self._left))

    def _fault(self, what: str) -> InputError:
        return InputError(f"{self._source.label}: variable {self.name!r}: {what}")

    def _take(self, size: int) -> bytes:
        if size > self._left:
            raise self._fault("damaged: a value is longer than its variable")
        self._left -= size
        return self._source.read(size)

    def _tag(self) -> tuple[int, int, bool]:
        """(type, bytes, small): small values share their tag's 8 bytes."""
        kind, size = struct.unpack("<II", self._take(4) + b"\0\0\0\0")
        if kind >> 16:
            return kind & 0xFFFF, kind >> 16, True
        (size,) = struct.unpack("<I", self._take(4))
        return kind, size, False

    def _pad(self, size: int, small: bool) -> None:
        self._take(min(-size % (4 if small else 8), self._left))  # some writers leave out the last padding

    def _bytes(self, kinds: tuple[int, ...], max_bytes: int) -> tuple[bytes, int]:
        kind, size, small = self._tag()
        if kind not in kinds or size > max_bytes or size > self._left or (small and size > 4):
            raise self._fault(f"damaged: a value of type {kind} and {size} bytes")
        data = b"".join(self._take(min(CHUNK, size - at)) for at in range(0, size, CHUNK))
        self._pad(size, small)
        return data, kind

    def _value(self, kinds: tuple[int, ...], max_bytes: int) -> bytes:
        return self._bytes(kinds, max_bytes)[0]

    def _header(self) -> tuple[int, int]:
        data = self._value((6,), 8)
        if len(data) != 8:
            raise self._fault("damaged array flags")
        return data[0], data[1]

    def _shape(self) -> tuple[int, ...]:
        data = self._value((5,), 4 * MAX_DIMS)
        shape = struct.unpack(f"<{len(data) // 4}i", data[: len(data) // 4 * 4])
        if len(shape) < 2 or min(shape) < 0:
            raise self._fault(f"damaged shape {shape}")
        return shape

    def _end(self) -> None:
        if self._left:
            raise self._fault(f"damaged: {self._left} bytes too many")


def variables(file: BinaryIO, label: str) -> Iterator[Variable]:
    """The variables of an open .mat file in order; one not read is passed over, unread, when the next is asked for.

    A variable that was read to its end has had its length and, if compressed, its checksum verified by the time the
    next is asked for. `file` is seekable; `label` names it in errors.
    """
    head = file.read(128)
    if head.startswith(b"\x89HDF") or head.startswith(b"MATLAB 7.3"):
        raise InputError(f"{label}: a MATLAB 7.3 (HDF5) file; version 5 is accepted")
    if len(head) < 128 or not head.startswith(b"MATLAB 5.0 MAT-file") or head[124:128] != b"\0\1IM":
        raise InputError(f"{label}: not a little-endian MATLAB 5 file")
    while tag := file.read(8):
        if len(tag) != 8:
            raise InputError(f"{label}: cut short in a variable's header")
        kind, size = struct.unpack("<II", tag)
        if kind not in (MATRIX, COMPRESSED):
            raise InputError(f"{label}: damaged: an element of type {kind} where a variable should be")
        after = file.tell() + size
        source = _Bytes(file, size, kind == COMPRESSED, label)
        if kind == COMPRESSED:
            inner, size = struct.unpack("<II", source.read(8))
            if inner != MATRIX:
                raise InputError(f"{label}: damaged: an element of type {inner} where a variable should be")
        variable = Variable(source, size)
        yield variable
        if not variable._left:
            source.finish()
        file.seek(after)
