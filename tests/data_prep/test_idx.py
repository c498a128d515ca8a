import gzip
import hashlib
import random
import struct
import tracemalloc

import numpy as np
import pytest

from ali_fast.errors import InputError
from data_prep.idx import read_idx

DATA = np.random.default_rng(0).integers(0, 256, (5, 4, 3), np.uint8)
PLAIN = struct.pack(">HBB3I", 0, 8, 3, 5, 4, 3) + DATA.tobytes()


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_reads_plain_and_gzipped(tmp_path, pack):
    path = tmp_path / "images"
    path.write_bytes(pack(PLAIN))
    array, digest = read_idx(path, (5, 4, 3))
    assert np.array_equal(array, DATA)
    assert digest == hashlib.sha256(PLAIN).hexdigest()


WRONG = {
    "empty": (b"", "not an IDX file"),
    "no IDX": (b"GIF89a" * 20, "not an IDX file"),
    "header cut": (PLAIN[:10], "not an IDX file"),
    "other shape": (struct.pack(">HBB3I", 0, 8, 3, 5, 3, 4) + DATA.tobytes(), r"IDX of type 8, \[5, 3, 4\]; should be"),
    "other rank": (struct.pack(">HBBI", 0, 8, 1, 60) + DATA.tobytes(), r"IDX of type 8, \[60\]; should be"),
    "other type": (struct.pack(">HBB3I", 0, 13, 3, 5, 4, 3) + DATA.tobytes(), "IDX of type 13"),
    "cut": (PLAIN[:-1], "cut short: IDX uint8 .* has 76 bytes"),
    "long": (PLAIN + b"\0", "too long"),
    "gzip cut": (gzip.compress(PLAIN)[:-9], "its gzip stream does not end well"),
    "gzip checksum": (gzip.compress(PLAIN)[:-8] + bytes(8), "its gzip stream does not end well"),
    "gzip method": (b"\x1f\x8b\x07" + bytes(30), "gzip"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_files(tmp_path, case):
    data, says = WRONG[case]
    path = tmp_path / "images"
    path.write_bytes(data)
    with pytest.raises(InputError, match=rf"^{path}: .*{says}"):
        read_idx(path, (5, 4, 3))


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"cannot read .*images: No such file"):
        read_idx(tmp_path / "images", (1,))


def test_a_bomb_is_not_unpacked(tmp_path):
    path = tmp_path / "images"
    path.write_bytes(gzip.compress(PLAIN + bytes(200 << 20), 1))
    tracemalloc.start()
    with pytest.raises(InputError, match="too long"):
        read_idx(path, (5, 4, 3))
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()


def test_fuzz(memory_path):
    """3,000 mutated files, half gzipped before and half after: read as exactly the shape, or refused by our error."""
    rng = random.Random(0)
    path = memory_path / "images"
    accepted = 0
    for number in range(3000):
        raw = bytearray(PLAIN if number % 2 else gzip.compress(PLAIN))
        for _ in range(rng.choice((1, 1, 3))):
            at = rng.randrange(len(raw)) if rng.random() < 0.5 else rng.randrange(min(20, len(raw)))
            kind = rng.randrange(4)
            if kind == 0:
                raw[at] = rng.randrange(256)
            elif kind == 1:
                raw[at : at + 4] = struct.pack(">I", rng.choice((0, 1, 1 << 31, (1 << 32) - 1)))
            elif kind == 2:
                del raw[at:]
                raw += b"\0"
            else:
                raw[at:at] = rng.randbytes(rng.choice((1, 100)))
        path.write_bytes(gzip.compress(raw) if number % 4 == 1 else raw)
        try:
            array, _ = read_idx(path, (5, 4, 3))
        except InputError:
            continue
        accepted += 1
        assert array.shape == (5, 4, 3)
    assert 0 < accepted < 1500
