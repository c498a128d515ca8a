import hashlib
import pickle
import struct

import fuzzing
import numpy as np
import published
import pytest
import scipy.io

from ali_fast.errors import InputError
from data_prep import svhn
from data_prep.download import Published
from data_prep.spool import Spool

COUNTS = {"train": 13, "test": 7, "extra": 29}


def scale_down(monkeypatch, files: dict[str, bytes]) -> None:
    """Let the published numbers be those of `files` (split -> .mat)."""
    monkeypatch.setattr(svhn, "COUNTS", COUNTS)
    monkeypatch.setattr(
        svhn,
        "FILES",
        {s: Published(f"{s}_32x32.mat", len(d), hashlib.sha256(d).hexdigest()) for s, d in files.items()},
    )


def open_changed(monkeypatch, tmp_path, **changed: bytes):
    files = {split: published.svhn(count, seed)[0] for seed, (split, count) in enumerate(COUNTS.items())} | changed
    scale_down(monkeypatch, files)
    source = published.put(tmp_path / "source", {f"{split}_32x32.mat": data for split, data in files.items()})
    return svhn.open_source(source, tmp_path / "downloads")


def test_published_numbers():
    assert svhn.COUNTS == {"train": 73_257, "test": 26_032, "extra": 531_131}


def scipys(images: np.ndarray, labels: np.ndarray) -> bytes:
    import io

    out = io.BytesIO()
    values = {"X": images.transpose(1, 2, 3, 0), "y": labels[:, None].astype(float)}
    scipy.io.savemat(out, values, do_compression=True)
    return out.getvalue()


@pytest.mark.parametrize("writer", ["matlab", "matlab, not compressed", "scipy"])
def test_every_pixel_and_label(monkeypatch, tmp_path, writer):
    made = {s: published.svhn(c, seed, writer == "matlab") for seed, (s, c) in enumerate(COUNTS.items())}
    files = {s: scipys(*m[1:]) if writer == "scipy" else m[0] for s, m in made.items()}
    splits = open_changed(monkeypatch, tmp_path, **files)
    assert splits.keys() == COUNTS.keys()
    for name, split in splits.items():
        _, images, labels = made[name]
        assert (split.count, split.image_shape, split.classes) == (COUNTS[name], (32, 32, 3), tuple("0123456789"))
        # The independent reader's idea of the file, transposed as its users do.
        mat = scipy.io.loadmat(tmp_path / "source" / f"{name}_32x32.mat")
        np.testing.assert_array_equal(mat["X"].transpose(3, 0, 1, 2), images)
        for index in range(split.count):
            sample = pickle.loads(pickle.dumps(split)).read(index)
            np.testing.assert_array_equal(sample.image, images[index])
            assert sample.label == labels[index] % 10
        assert split.source_sha256 == {f"{name}_32x32.mat": hashlib.sha256(files[name]).hexdigest()}


def test_wrong_files(monkeypatch, tmp_path):
    def refused(message: str, **changed: bytes) -> None:
        with pytest.raises(InputError, match=message):
            open_changed(monkeypatch, tmp_path, **changed)

    X = published.mat_matrix("X", 9, 2, (32, 32, 3, 13), bytes(13 * 3072))
    y = published.mat_matrix("y", 6, 2, (13, 1), bytes([1] * 13))
    refused(r"X is \[32, 32, 3, 12\], should be \[32, 32, 3, 13\]", train=published.svhn(12)[0])
    refused("no variable y", train=published.mat_file([X]))
    refused("no variable X", train=published.mat_file([y]))
    for value in (0, 11):
        wrong = published.mat_matrix("y", 6, 2, (13, 1), bytes([1, 2, value] + [1] * 10))
        refused(f"image 2: label {value}.0, should be 1 to 10", train=published.mat_file([X, wrong]))
    for value in (2.5, float("nan")):
        wrong = published.mat_matrix("y", 6, 9, (13, 1), struct.pack("<13d", 1, value, *[1] * 11))
        refused(f"image 1: label {value}", train=published.mat_file([X, wrong]))
    refused("not 39936 values of uint8", train=published.mat_file([X.replace(b"\2\0\0\0\0\x9c", b"\3\0\0\0\0\x9c"), y]))


def test_source_is_a_folder_of_all_three(monkeypatch, tmp_path):
    open_changed(monkeypatch, tmp_path)
    with pytest.raises(InputError, match=r"not a folder; give the folder of train_32x32.mat, test_32x32.mat, extra"):
        svhn.open_source(tmp_path / "source" / "train_32x32.mat", tmp_path)
    (tmp_path / "source" / "extra_32x32.mat").unlink()
    with pytest.raises(InputError, match=r"no extra_32x32.mat there"):
        svhn.open_source(tmp_path / "source", tmp_path)
    (tmp_path / "source" / "extra_32x32.mat").write_bytes(b"another file")
    with pytest.raises(InputError, match="another file, or cut short"):
        svhn.open_source(tmp_path / "source", tmp_path)


def test_a_large_file_is_read_in_small_memory(monkeypatch, tmp_path):
    """200 MB of pixels; extra has eight times as many."""
    count = 1 << 16
    monkeypatch.setattr(svhn, "COUNTS", {"extra": count})
    name = published.mat_element(1, b"X")
    flags, shape = (
        published.mat_element(6, bytes([9, *[0] * 7])),
        published.mat_element(5, struct.pack("<4i", 32, 32, 3, count)),
    )
    size = count * 3072
    body = flags + shape + name + struct.pack("<II", 2, size)
    y = published.mat_matrix("y", 6, 2, (count, 1), bytes([10]) * count)
    path = tmp_path / "extra_32x32.mat"
    with path.open("wb") as file:
        file.write(published.mat_file([]) + struct.pack("<II", 14, len(body) + size) + body)
        file.seek(size, 1)
        file.write(y)

    def read() -> tuple[int, int]:
        split = svhn._open_split("extra", path, Spool(tmp_path))
        return int(split.read(count - 1).image.sum()), split.read(5).label

    result, growth = fuzzing.in_child(read)
    assert result == (0, 0)
    assert growth < 24 << 20


def test_fuzz(monkeypatch, memory_path):
    monkeypatch.setattr(svhn, "COUNTS", {"test": 2})
    path = memory_path / "test_32x32.mat"
    originals = [published.svhn(2)[0], published.svhn(2, compress=False)[0]]

    def parse(data: bytes) -> None:
        path.write_bytes(data)
        split = svhn._open_split("test", path, Spool(memory_path))
        for index in range(split.count):
            sample = split.read(index)
            assert sample.image.shape == (32, 32, 3)
            assert 0 <= sample.label < 10

    def fuzz() -> tuple[int, int]:
        return fuzzing.only_input_errors(parse, fuzzing.mutations(originals, 2500, 9))

    (_, refused), growth = fuzzing.in_child(fuzz)
    assert refused > 1200
    assert growth < 32 << 20
