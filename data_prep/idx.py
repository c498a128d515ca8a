"""The IDX format of the MNIST family, plain or gzipped: two zero bytes, type (8: uint8), rank, sizes (u32 BE), data.

Source: Y. LeCun, C. Cortes, C. Burges, *The MNIST database*, "The IDX file format".
"""

from __future__ import annotations

import gzip
import hashlib
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from ali_fast.errors import InputError


def read_idx(path: Path, shape: tuple[int, ...]) -> tuple[np.ndarray, str]:
    """(uint8 array of exactly `shape`, sha256 of the IDX file as it is without gzip).

    Never reads more than such a file has, whatever its header or its gzip stream claims. Raises InputError.
    """
    header = struct.pack(f">HBB{len(shape)}I", 0, 8, len(shape), *shape)
    size = len(header) + math.prod(shape)
    try:
        with path.open("rb") as plain:
            gzipped = plain.read(2) == b"\x1f\x8b"
        with gzip.open(path) if gzipped else path.open("rb") as file:
            content = file.read(size + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise InputError(f"{path}: damaged: its gzip stream does not end well") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None
    if not content.startswith(header):
        found = _describe(content)
        raise InputError(f"{path}: {found}; should be IDX uint8 {list(shape)}")
    if len(content) != size:
        fault = "cut short" if len(content) < size else "too long"
        raise InputError(f"{path}: {fault}: IDX uint8 {list(shape)} has {size} bytes")
    return np.frombuffer(content, np.uint8, offset=len(header)).reshape(shape), hashlib.sha256(content).hexdigest()


def _describe(content: bytes) -> str:
    """What a file that is not the expected one begins with."""
    if len(content) < 4 or content[:2] != b"\0\0":
        return "not an IDX file"
    kind, rank = content[2:4]
    if len(content) < 4 + 4 * rank:
        return "not an IDX file"
    return f"IDX of type {kind}, {list(struct.unpack_from(f'>{rank}I', content, 4))}"
