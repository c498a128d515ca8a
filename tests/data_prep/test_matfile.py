import io
import struct
import zlib

import fuzzing
import numpy as np
import published
import pytest
import scipy.io

from ali_fast.errors import InputError
from data_prep import matfile

ARRAYS = {
    "X": np.random.default_rng(0).integers(0, 256, (32, 32, 3, 5), dtype=np.uint8),
    "y": np.array([[1.0], [10.0], [3.5], [-2.0], [np.inf]]),
    "small": np.array([[7]], np.int16),
    "empty": np.zeros((0, 3)),
    "wide": np.arange(30, dtype=np.int64).reshape(2, 3, 5) - 2**40,
    "single": np.array([[1.5, 2.5]], np.float32),
}


def saved(values: dict, compress: bool = False) -> bytes:
    out = io.BytesIO()
    scipy.io.savemat(out, values, do_compression=compress)
    return out.getvalue()


def read(data: bytes) -> dict:
    return {v.name: v.values(20_000) for v in matfile.variables(io.BytesIO(data), "f.mat")}


def read_anything(data: bytes) -> None:
    """Every way to read a variable, chosen by what it says it is."""
    for variable in matfile.variables(io.BytesIO(data), "f.mat"):
        if variable.name == "X":
            variable.stream(lambda part: None)
        elif variable.kind == matfile.STRUCT:
            for _, value in variable.structs(100):
                if value.kind == matfile.CHAR:
                    value.text(1000)
                elif value.dtype is not None:
                    value.values(1000)
        elif variable.kind == matfile.CHAR:
            variable.text(1000)
        else:
            variable.values(10_000)


@pytest.mark.parametrize("compress", [False, True])
def test_numbers_equal_scipys(compress):
    data = saved(ARRAYS, compress)
    expected = scipy.io.loadmat(io.BytesIO(data), mat_dtype=True)
    found = read(data)
    assert found.keys() == ARRAYS.keys()
    for name, value in found.items():
        assert value.dtype == expected[name].dtype
        np.testing.assert_array_equal(value, expected[name])


@pytest.mark.parametrize("compress", [False, True])
def test_narrowed_numbers_as_matlab_writes_them(compress):
    """A double array whose values fit is stored as uint8 or int16; scipy writes no such file, but reads it."""
    matrices = [
        published.mat_matrix("y", 6, 2, (3, 1), bytes([1, 9, 10])),
        published.mat_matrix("z", 6, 3, (1, 4), struct.pack("<4h", -1, 2, 300, 4)),
    ]
    data = published.mat_file(matrices, compress)
    expected = scipy.io.loadmat(io.BytesIO(data), mat_dtype=True)
    for name, value in read(data).items():
        assert value.dtype == expected[name].dtype == np.float64
        np.testing.assert_array_equal(value, expected[name])


@pytest.mark.parametrize("compress", [False, True])
def test_streamed_bytes_are_in_column_major_order(compress):
    parts: list[bytes] = []
    for variable in matfile.variables(io.BytesIO(saved(ARRAYS, compress)), "f.mat"):
        if variable.name == "X":
            assert variable.shape == (32, 32, 3, 5)
            variable.stream(parts.append)
    assert b"".join(parts) == ARRAYS["X"].tobytes(order="F")


def test_a_stream_comes_in_parts():
    data = saved({"X": np.zeros((1, 3 << 20), np.uint8)}, True)
    lengths: list[int] = []
    for variable in matfile.variables(io.BytesIO(data), "f.mat"):
        variable.stream(lambda part: lengths.append(len(part)))
    assert lengths == [1 << 20] * 3


def test_structures_and_text_equal_scipys():
    synsets = np.zeros((2, 1), [("ID", "O"), ("WNID", "O"), ("children", "O")])
    synsets[0, 0] = (3.0, "n01440764", np.zeros((0, 0)))
    synsets[1, 0] = (4.0, "größe", np.array([[1.0, 2.0]]))
    data = saved({"other": np.ones((2, 2)), "synsets": synsets}, True)
    found = []
    for variable in matfile.variables(io.BytesIO(data), "f.mat"):
        if variable.name == "synsets":
            for field, value in variable.structs(10):
                found.append((field, value.text(64) if value.kind == matfile.CHAR else value.values(9).tolist()))
    assert found == [
        ("ID", [[3.0]]), ("WNID", "n01440764"), ("children", []),
        ("ID", [[4.0]]), ("WNID", "größe"), ("children", [[1.0, 2.0]]),
    ]  # fmt: skip


def test_other_versions_and_kinds_are_refused():
    with pytest.raises(InputError, match=r"7\.3"):
        read(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(512, b"\0"))
    with pytest.raises(InputError, match=r"7\.3"):
        read(b"\x89HDF\r\n\x1a\n" + bytes(200))
    with pytest.raises(InputError, match="not a little-endian MATLAB 5"):
        read(saved({})[:126] + b"MI")
    with pytest.raises(InputError, match="complex"):
        read(saved({"x": np.array([[1j]])}))
    cells = np.empty((1, 1), object)
    cells[0, 0] = 1.0
    with pytest.raises(InputError, match="not numbers"):
        read(saved({"c": cells}))


def test_an_unread_variable_is_passed_over():
    names = [v.name for v in matfile.variables(io.BytesIO(saved(ARRAYS, True)), "f.mat")]
    assert names == list(ARRAYS)


@pytest.mark.parametrize("compress", [False, True])
def test_every_cut_is_refused(compress):
    data = published.svhn(2, compress=compress)[0]
    starts = {128, 128 + 8 + struct.unpack_from("<I", data, 132)[0]}
    for length in range(0, len(data), 37):
        if length not in starts:
            with pytest.raises(InputError):
                read_anything(data[:length])


def test_a_wrong_checksum_inside_is_refused():
    data = bytearray(published.svhn(2)[0])
    data[128 + 8 + struct.unpack_from("<I", data, 132)[0] - 1] ^= 1  # the last byte of X's adler32
    with pytest.raises(InputError, match="damaged"):
        read_anything(bytes(data))


def test_a_compressed_variable_ends_where_its_header_says():
    matrix = published.mat_matrix("y", 6, 2, (3, 1), bytes([1, 9, 10]))
    header = published.mat_file([])
    assert read(published.mat_file([matrix]))["y"].tolist() == [[1], [9], [10]]
    for packed in (zlib.compress(matrix + b"more"), zlib.compress(matrix)[:-4]):
        with pytest.raises(InputError, match=r"length is not what its header says"):
            read(header + struct.pack("<II", 15, len(packed)) + packed)


def test_values_above_the_callers_limit_are_refused():
    text = saved({"t": "x" * 100})
    for limit, message in ((99, "100 bytes"), (100, None)):
        for variable in matfile.variables(io.BytesIO(text), "f.mat"):
            if message is None:
                assert variable.text(limit) == "x" * 100
            else:
                with pytest.raises(InputError, match=message):
                    variable.text(limit)
    with pytest.raises(InputError, match="300 bytes"):
        read(published.mat_file([published.mat_matrix("n" * 300, 6, 2, (1, 1), b"1")]))


def test_lying_headers_cost_no_memory():
    """Shapes, sizes and names that say gigabytes; a stream of 128 MB behind an honest header."""
    header = published.mat_file([])
    flags = published.mat_element(6, bytes([9, 0, 0, 0, 0, 0, 0, 0]))

    def variable(shape: bytes, rest: bytes, said: int | None = None) -> bytes:
        body = flags + shape + published.mat_element(1, b"X") + rest
        return header + struct.pack("<II", 14, len(body) if said is None else said) + body

    def shape(*sizes: int) -> bytes:
        return published.mat_element(5, struct.pack(f"<{len(sizes)}i", *sizes))

    honest = published.mat_element(2, b"12345678")
    zeros = published.deflated_zeros(1 << 27)
    inner = struct.pack("<II", 14, (1 << 32) - 9) + flags + shape(1 << 14, 1 << 13) + published.mat_element(1, b"X")
    inner += struct.pack("<II", 2, 1 << 27)
    start = zlib.compressobj()
    stream = start.compress(inner) + start.flush(zlib.Z_FULL_FLUSH) + zeros
    liars = [
        variable(shape(2**31 - 1, 2**31 - 1), honest),
        variable(shape(1 << 15, 1 << 15), struct.pack("<II", 2, 1 << 30), said=(1 << 32) - 9),
        variable(struct.pack("<II", 5, 1 << 31) + bytes(64), honest),
        variable(shape(8, 1), struct.pack("<II", 2, (1 << 32) - 1) + bytes(64)),
        header + struct.pack("<II", 15, len(stream)) + stream,
    ]

    def refuse() -> int:
        for data in liars:
            for parse in (read, read_anything):
                with pytest.raises(InputError):
                    parse(data)
        return len(liars)

    count, growth = fuzzing.in_child(refuse)
    assert count == 5
    assert growth < 16 << 20


def test_fuzz():
    synsets = published.imagenet_devkit([])["ILSVRC2012_devkit_t12/data/meta.mat"]
    plain = saved({"synsets": scipy.io.loadmat(io.BytesIO(synsets))["synsets"]})
    originals = [
        published.svhn(1, compress=False)[0],
        published.svhn(1)[0],
        saved({k: v for k, v in ARRAYS.items() if k != "X"}),
        plain,
        synsets,
    ]

    def fuzz() -> tuple[int, int]:
        return fuzzing.only_input_errors(read_anything, fuzzing.mutations(originals, 4000, seed=4))

    (_, refused), growth = fuzzing.in_child(fuzz)
    assert refused > 2000
    assert growth < 32 << 20
