"""Tar and zip archives as lists of byte ranges: nothing is ever extracted under a name that an archive chose.

Readers of our own, because the standard library's allocate what a header claims (tarfile's pax and long-name records,
zipfile's entry objects: 13 bytes of memory per byte of a crafted directory). Here memory follows the bytes really
there, links, devices, sparse and encrypted members are refused, and so are names that leave the archive's root.

Formats: POSIX.1-1988 ustar, GNU tar and pax (IEEE Std 1003.1-2008); PKWARE APPNOTE 6.3, with zip64, methods 0 and 8.
Every fault is an InputError naming the archive and the member.
"""

from __future__ import annotations

import gzip
import os
import stat
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ali_fast.errors import InputError

BLOCK = 512
MAX_HEADER_BYTES = 1 << 16  # a pax or long-name record; real ones take a few hundred
MAX_DIRECTORY_BYTES = 1 << 28  # a zip's central directory; CelebA's takes 20 MB


class Range(NamedTuple):
    """A regular file inside an uncompressed tar (or a decompressing stream): `size` bytes at `offset`."""

    name: str
    offset: int
    size: int


class ZipEntry(NamedTuple):
    """A regular file inside a zip. `offset` is its local header's; sizes in bytes."""

    name: str
    offset: int
    packed: int
    size: int
    method: int
    crc: int


def _check_name(raw: bytes, archive: str, encoding: str = "utf-8") -> str:
    name = raw.decode(encoding, "surrogateescape")
    parts = name.replace("\\", "/").split("/")
    if not name or "\0" in name or name.startswith(("/", "\\")) or ".." in parts or ":" in parts[0]:
        raise InputError(f"{archive}: member name {name!r} leaves the archive's folder")
    return name


# ---------------------------------------------------------------------------------------------------------- tar


def tar_ranges(file: BinaryIO, archive: str, start: int = 0, end: int | None = None) -> Iterator[Range]:
    """The regular files of the tar at bytes `start`..`end` of `file`, in order; directories are passed over.

    `file` may be a gzip stream: it is only ever moved forward, and the caller may read a member before asking for
    the next. `end` bounds a nested tar, or how much of a compressed one is looked at.
    """
    at, long_name, size_override = start, None, None
    while True:
        header = _read(file, at, BLOCK, archive, end)
        at += BLOCK
        if not any(header):
            return
        kind, size, name = _tar_header(header, archive)
        if kind in b"LKxg":
            if size > MAX_HEADER_BYTES:
                raise InputError(f"{archive}: a header record of {size} bytes at byte {at}")
            body = _read(file, at, size, archive, end)
            if kind == b"L":
                long_name = body.rstrip(b"\0")
            elif kind == b"x":
                fields = _pax_fields(body, archive)
                long_name = fields.get(b"path", long_name)
                size_override = _number(fields.get(b"size"), archive)
                if any(key.startswith(b"GNU.sparse") for key in fields):
                    raise InputError(f"{archive}: a sparse member at byte {at}")
        else:
            size = size if size_override is None else size_override
            member = _check_name(name if long_name is None else long_name, archive)
            if kind not in b"0\0" and kind != b"5":
                raise InputError(f"{archive}: {member!r} is a link, a device or of an unknown kind ({kind!r})")
            if kind == b"5" or member.endswith("/"):
                size = 0
            else:
                if end is not None and at + size > end:
                    raise InputError(f"{archive}: {member!r} of {size} bytes does not fit in the archive")
                yield Range(member, at, size)
            long_name = size_override = None
        at += -(-size // BLOCK) * BLOCK


def _read(file: BinaryIO, at: int, size: int, archive: str, end: int | None) -> bytes:
    if end is not None and at + size > end:
        raise InputError(f"{archive}: no end mark within {end} bytes: cut short, or not this data set's archive")
    try:
        file.seek(at)
        data = file.read(size)
    except (OSError, EOFError, zlib.error, ValueError, OverflowError) as error:
        raise InputError(f"{archive}: damaged near byte {at}: {error}") from None
    if len(data) != size:
        raise InputError(f"{archive}: cut short at byte {at + len(data)}")
    return data


def _tar_header(header: bytes, archive: str) -> tuple[bytes, int, bytes]:
    """(type flag, size in bytes, name) of a 512-byte header whose checksum holds."""
    said = _octal(header[148:156], archive)
    if said != sum(header) - sum(header[148:156]) + 8 * ord(" "):
        raise InputError(f"{archive}: not a tar archive, or a damaged one (header checksum)")
    field = header[124:136]
    size = int.from_bytes(field[1:], "big") if field[0] == 0x80 else _octal(field, archive)
    name = header[:100].split(b"\0")[0]
    prefix = header[345:500].split(b"\0")[0]
    if header[257:263] == b"ustar\0" and prefix:
        name = prefix + b"/" + name
    return header[156:157], size, name


def _octal(field: bytes, archive: str) -> int:
    digits = field.split(b"\0")[0].strip(b" ")
    if digits.strip(b"01234567"):
        raise InputError(f"{archive}: not a tar archive, or a damaged one (header field {field!r})")
    return int(digits or b"0", 8)


def _pax_fields(body: bytes, archive: str) -> dict[bytes, bytes]:
    """pax records "LENGTH KEY=VALUE\\n" as a dict."""
    fields, at = {}, 0
    while at < len(body) and body[at] != 0:
        head, space, _ = body[at : at + 12].partition(b" ")
        length = _number(head, archive) or 0
        record = body[at + len(head) + 1 : at + length]
        key, equals, value = record[:-1].partition(b"=")
        if not (space and equals and record.endswith(b"\n") and at + length <= len(body)):
            raise InputError(f"{archive}: a damaged pax header")
        fields[key] = value
        at += length
    return fields


def _number(digits: bytes | None, archive: str) -> int | None:
    if digits is None:
        return None
    if not digits.isdigit() or len(digits) > 18:
        raise InputError(f"{archive}: a damaged pax header: {digits[:40]!r} is not a number")
    return int(digits)


@contextmanager
def open_gzip(path: Path) -> Iterator[BinaryIO]:
    """The decompressed bytes of a .gz as a forward stream for `tar_ranges`; memory stays at one buffer."""
    with gzip.open(path) as file:
        yield file  # type: ignore[misc]


def read_range(file: BinaryIO, member: Range, archive: str) -> bytes:
    """A member's bytes; the caller has looked at `member.size` first."""
    return _read(file, member.offset, member.size, archive, None)


# ---------------------------------------------------------------------------------------------------------- zip


def zip_entries(path: Path) -> Iterator[ZipEntry]:
    """The regular files of a zip in its directory's order; folders are passed over."""
    archive = path.name
    with path.open("rb") as file:
        start, size = _zip_directory(file, archive)
        if size > MAX_DIRECTORY_BYTES:
            raise InputError(f"{archive}: a directory of {size} bytes")
        directory = _read(file, start, size, archive, None)
    at = 0
    while at < len(directory):
        if directory[at : at + 4] != b"PK\1\2" or at + 46 > len(directory):
            raise InputError(f"{archive}: a damaged zip directory at its byte {at}")
        (made, flags, method, crc, packed, full, n_name, n_extra, n_comment, attributes, offset) = struct.unpack_from(
            "<4xH2xHH4xIIIHHH4xII", directory, at
        )
        name_at, at = at + 46, at + 46 + n_name + n_extra + n_comment
        if at > len(directory):
            raise InputError(f"{archive}: a damaged zip directory: its last entry is cut short")
        raw = directory[name_at : name_at + n_name]
        name = _check_name(raw, archive, "utf-8" if flags & 0x800 else "cp437")
        extra = directory[name_at + n_name : name_at + n_name + n_extra]
        full, packed, offset = _zip64_sizes(extra, full, packed, offset, archive)
        kind = stat.S_IFMT(attributes >> 16) if made >> 8 == 3 else 0  # 3: written on Unix
        if name.endswith(("/", "\\")) or kind == stat.S_IFDIR:
            continue
        if kind not in (0, stat.S_IFREG):
            raise InputError(f"{archive}: {name!r} is a link or a device")
        if flags & 0x2041 or method not in (0, 8):
            raise InputError(f"{archive}: {name!r} is encrypted, or packed by a method other than store and deflate")
        if offset + 30 + packed > start:
            raise InputError(f"{archive}: {name!r} does not lie before the archive's directory")
        yield ZipEntry(name, offset, packed, full, method, crc)


def _zip_directory(file: BinaryIO, archive: str) -> tuple[int, int]:
    """(offset, size) of the central directory, from the end record or its zip64 form."""
    length = file.seek(0, os.SEEK_END)
    tail_at = max(0, length - 22 - 0xFFFF)
    tail = _read(file, tail_at, length - tail_at, archive, None)
    found = tail.rfind(b"PK\5\6")
    if found < 0 or found + 22 > len(tail):
        raise InputError(f"{archive}: not a zip archive, or cut short (no end record)")
    size, start = struct.unpack_from("<12xII", tail, found)
    locator = tail_at + found - 20
    if locator >= 0 and (head := _read(file, locator, 20, archive, None))[:4] == b"PK\6\7":
        record = _read(file, struct.unpack_from("<8xQ", head)[0], 56, archive, None)
        if record[:4] != b"PK\6\6":
            raise InputError(f"{archive}: a damaged zip64 end record")
        size, start = struct.unpack_from("<40xQQ", record)
    if start + size > length:
        raise InputError(f"{archive}: not a whole zip archive: its directory lies outside the file")
    return start, size


def _zip64_sizes(extra: bytes, full: int, packed: int, offset: int, archive: str) -> tuple[int, int, int]:
    """The three sizes, each replaced by the zip64 field's (header id 1) where the directory holds 0xFFFFFFFF."""
    at = 0
    while at + 4 <= len(extra):
        key, size = struct.unpack_from("<HH", extra, at)
        if key == 1:
            wide = [struct.unpack_from("<Q", extra, i)[0] for i in range(at + 4, min(at + 4 + size, len(extra)) - 7, 8)]
            values = [wide.pop(0) if v == 0xFFFFFFFF and wide else v for v in (full, packed, offset)]
            return values[0], values[1], values[2]
        at += 4 + size
    return full, packed, offset


def read_zip_entry(path: Path, entry: ZipEntry, max_bytes: int) -> bytes:
    """An entry's bytes, its length and CRC-32 checked. Opens the file anew: safe in any process."""
    label = f"{path.name}: {entry.name!r}"
    if entry.size > max_bytes or entry.packed > max_bytes + (max_bytes >> 6) + 1024:
        raise InputError(f"{label}: {max(entry.size, entry.packed)} bytes, at most {max_bytes} are accepted")
    with path.open("rb") as file:
        header = _read(file, entry.offset, 30, label, None)
        if header[:4] != b"PK\3\4":
            raise InputError(f"{label}: no local header where the directory says")
        n_name, n_extra = struct.unpack_from("<26xHH", header)
        data = _read(file, entry.offset + 30 + n_name + n_extra, entry.packed, label, None)
    if entry.method == 8:
        inflate = zlib.decompressobj(-15)
        try:
            data = inflate.decompress(data, entry.size + 1)
        except zlib.error as error:
            raise InputError(f"{label}: damaged: {error}") from None
    if len(data) != entry.size or zlib.crc32(data) != entry.crc:
        raise InputError(f"{label}: damaged: its length or CRC-32 is not the directory's")
    return data
