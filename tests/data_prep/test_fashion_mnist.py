"""On the real files where Debian's package is installed; on made files in the same format everywhere."""

import gzip
import hashlib
import struct

import numpy as np
import pytest

from ali_fast.data.beton import Beton
from ali_fast.errors import InputError
from data_prep import fashion_mnist, prepare
from data_prep.fashion_mnist import DEBIAN, FILES

real = pytest.mark.skipif(not DEBIAN.is_dir(), reason="needs Debian's package dataset-fashion-mnist")


@pytest.fixture
def made(tmp_path, monkeypatch):
    """The four files with 60 + 10 images, and the module told to expect them."""
    rng = np.random.default_rng(0)
    source = tmp_path / "source"
    source.mkdir()
    arrays = {}
    for part, file in FILES.items():
        count = 60 if part.startswith("train") else 10
        shape = (count, 28, 28) if part.endswith("images") else (count,)
        arrays[part] = rng.integers(0, 256 if len(shape) > 1 else 10, shape, np.uint8)
        content = struct.pack(f">HBB{len(shape)}I", 0, 8, len(shape), *shape) + arrays[part].tobytes()
        (source / file.name).write_bytes(gzip.compress(content))
        monkeypatch.setitem(fashion_mnist.SHAPES, part, shape)
        monkeypatch.setitem(fashion_mnist.CONTENT_SHA256, part, hashlib.sha256(content).hexdigest())
    bounds = {"train": ("train", 0, 50), "valid": ("train", 50, 60), "test": ("test", 0, 10)}
    monkeypatch.setattr(fashion_mnist, "BOUNDS", bounds)
    return source, arrays


def check(data_dir, arrays, bounds):
    for split, (part, low, high) in bounds.items():
        beton = Beton(data_dir / "fashion-mnist" / f"{split}.beton")
        images = beton.arrays("image", 0, high - low)
        assert images.shape == (high - low, 28, 28, 1)
        assert np.array_equal(images[..., 0], arrays[f"{part} images"][low:high])
        assert np.array_equal(beton.metadata["label"], arrays[f"{part} labels"][low:high])


def test_splits(tmp_path, made):
    source, arrays = made
    manifests = prepare("fashion-mnist", source=source, data_dir=tmp_path)
    check(tmp_path, arrays, fashion_mnist.BOUNDS)
    assert manifests[0].classes[9] == "Ankle boot"
    assert sorted(manifests[0].source_sha256) == sorted(file.name.removesuffix(".gz") for file in FILES.values())


def test_unpacked_files_will_do(tmp_path, made):
    source, arrays = made
    for path in list(source.iterdir()):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    prepare("fashion-mnist", source=source, data_dir=tmp_path)
    check(tmp_path, arrays, fashion_mnist.BOUNDS)


def test_errors(tmp_path, made):
    source, _ = made
    labels = source / FILES["train labels"].name
    content = bytearray(gzip.decompress(labels.read_bytes()))
    content[-1] ^= 1
    labels.write_bytes(gzip.compress(content))
    with pytest.raises(InputError, match="has Fashion-MNIST's form, but not its content"):
        fashion_mnist.open_source(source, tmp_path)
    labels.unlink()
    with pytest.raises(InputError, match=f"there is no {labels.name} in it, nor train-labels-idx1-ubyte"):
        fashion_mnist.open_source(source, tmp_path)


def test_downloads_what_is_not_here(tmp_path, made, monkeypatch):
    source, arrays = made
    monkeypatch.setattr(fashion_mnist, "DEBIAN", tmp_path / "not there")
    asked = []

    def fetch(file, folder):
        asked.append((file.url, folder))
        return source / file.name

    monkeypatch.setattr(fashion_mnist, "fetch", fetch)
    prepare("fashion-mnist", data_dir=tmp_path)
    check(tmp_path, arrays, fashion_mnist.BOUNDS)
    assert asked == [(file.url, tmp_path / "fashion-mnist" / "downloads") for file in FILES.values()]


@real
def test_the_real_files(tmp_path):
    """Debian compresses the published files again: the same content under another gzip header."""
    prepare("fashion-mnist", data_dir=tmp_path)
    arrays = {}
    for part, file in FILES.items():
        content = gzip.decompress((DEBIAN / file.name).read_bytes())
        shape = fashion_mnist.SHAPES[part]
        arrays[part] = np.frombuffer(content, np.uint8, offset=4 + 4 * len(shape)).reshape(shape)
    check(tmp_path, arrays, fashion_mnist.BOUNDS)
