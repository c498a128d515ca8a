import hashlib
import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor

import fuzzing
import numpy as np
import published
import pytest

from ali_fast.errors import InputError
from data_prep import cifar10, download
from data_prep.download import Published

RECORDS = 20


@pytest.fixture
def files(monkeypatch):
    """(archive, its members, images, labels), with the published numbers scaled down to them."""
    members, images, labels = published.cifar10(RECORDS)
    archive = published.cifar10_archive(members)
    digest = hashlib.sha256(archive).hexdigest()
    monkeypatch.setattr(cifar10, "FILE_RECORDS", RECORDS)
    monkeypatch.setattr(cifar10, "VALID_RECORDS", 10)
    monkeypatch.setattr(cifar10, "ARCHIVE", Published("cifar-10-binary.tar.gz", len(archive), digest))
    return archive, members, images, labels


def test_published_numbers():
    """50,000 and 10,000 images; the paper trains on the first 45,000 and validates on the next 5,000."""
    assert cifar10.FILE_RECORDS * len(cifar10.FILES) == 60_000
    assert cifar10.VALID_RECORDS == 5_000
    assert cifar10.RECORD_BYTES == 3073
    assert cifar10.ARCHIVE.size == 170_052_171


@pytest.mark.parametrize("layout", ["archive", "folder of the archive", "files", "folder of the files"])
def test_every_pixel_and_label(files, tmp_path, layout):
    archive, members, images, labels = files
    source = published.put(tmp_path / "source", {"cifar-10-binary.tar.gz": archive} if "archive" in layout else {})
    if layout == "archive":
        source = source / "cifar-10-binary.tar.gz"
    elif layout == "files":
        published.put(source, members)
    elif layout == "folder of the files":
        published.put(source / "cifar-10-batches-bin", members)
    splits = cifar10.open_source(source, tmp_path / "downloads")
    bounds = {"train": (0, 90), "valid": (90, 100), "test": (100, 120)}
    assert splits.keys() == bounds.keys()
    for name, (low, high) in bounds.items():
        split = splits[name]
        assert (split.count, split.image_shape, len(split.classes)) == (high - low, (32, 32, 3), 10)
        for index in range(split.count):
            sample = split.read(index)
            np.testing.assert_array_equal(sample.image, images[low + index])
            assert sample.image.dtype == np.uint8
            assert sample.label == labels[low + index]
            assert sample.attributes is None
    for digest in splits["train"].source_sha256.values():
        assert digest in {hashlib.sha256(data).hexdigest() for data in [archive, *members.values()]}


def test_reading_in_other_processes(files, tmp_path):
    source = published.put(tmp_path / "source", files[1])
    split = cifar10.open_source(source, tmp_path / "downloads")["test"]
    copy = pickle.loads(pickle.dumps(split))
    np.testing.assert_array_equal(copy.read(3).image, split.read(3).image)
    with ProcessPoolExecutor(2, multiprocessing.get_context("fork")) as pool:
        samples = pool.map(split.read, range(RECORDS), timeout=60)
        for sample, index in zip(samples, range(RECORDS), strict=True):
            np.testing.assert_array_equal(sample.image, split.read(index).image)


def test_no_temporary_file_is_left(files, tmp_path):
    splits = cifar10.open_source(published.put(tmp_path / "source", files[1]), tmp_path / "downloads")
    assert len(list((tmp_path / "downloads").iterdir())) == 1
    del splits
    assert list((tmp_path / "downloads").iterdir()) == []


def test_wrong_files(files, tmp_path, monkeypatch):
    archive, members, *_ = files

    def refused(source, message):
        with pytest.raises(InputError, match=message):
            cifar10.open_source(source, tmp_path / "downloads")

    refused(published.put(tmp_path / "a", {"x": b""}), "no cifar-10-binary.tar.gz there")
    refused(published.put(tmp_path / "b", {"cifar-10-binary.tar.gz": archive[:-1]}), "bytes, the published")
    damaged = archive[:50] + b"?" + archive[51:]
    refused(published.put(tmp_path / "c", {"cifar-10-binary.tar.gz": damaged}), "damaged: sha256")
    short = members | {"data_batch_3.bin": members["data_batch_3.bin"][:-1]}
    refused(published.put(tmp_path / "d", short), "data_batch_3.bin: 61459 bytes, 20 records of 3073")
    missing = {name: data for name, data in members.items() if name != "data_batch_2.bin"}
    refused(published.put(tmp_path / "e", missing), "data_batch_2.bin: not there")
    wrong = members["test_batch.bin"][: 7 * 3073] + bytes([10]) + members["test_batch.bin"][7 * 3073 + 1 :]
    refused(published.put(tmp_path / "f", members | {"test_batch.bin": wrong}), "test_batch.bin, image 7: label 10")
    monkeypatch.setattr(download, "verify", lambda file, path: None)
    incomplete = published.cifar10_archive(missing)
    refused(published.put(tmp_path / "g", {"cifar-10-binary.tar.gz": incomplete}), "no data_batch_2.bin in it")
    folded = published.cifar10_archive(short)
    refused(published.put(tmp_path / "h", {"cifar-10-binary.tar.gz": folded}), "data_batch_3.bin: 61459 bytes")


def fuzz(folder, name, originals, seed):
    def parse(data):
        (folder / name).write_bytes(data)
        for split in cifar10.open_source(folder, folder / "downloads").values():
            for index in range(split.count):
                sample = split.read(index)
                assert sample.image.shape == (32, 32, 3)
                assert 0 <= sample.label < 10

    return fuzzing.in_child(lambda: fuzzing.only_input_errors(parse, fuzzing.mutations(originals, 2000, seed)))


def test_fuzz_files(monkeypatch, memory_path):
    monkeypatch.setattr(cifar10, "FILE_RECORDS", 2)
    monkeypatch.setattr(cifar10, "VALID_RECORDS", 1)
    members, *_ = published.cifar10(2)
    published.put(memory_path, members)
    name = "data_batch_1.bin"
    # Most faults change the length; let half of the inputs be faulty in their values only.
    values = [data[: 2 * 3073].ljust(2 * 3073, b"\x0b") for data in fuzzing.mutations([members[name]], 1000, 6)]
    (_, refused), growth = fuzz(memory_path, name, [*values, members[name]], 7)
    assert refused > 500
    assert growth < 32 << 20


def test_fuzz_archive(monkeypatch, memory_path):
    monkeypatch.setattr(cifar10, "FILE_RECORDS", 1)
    monkeypatch.setattr(cifar10, "VALID_RECORDS", 1)
    monkeypatch.setattr(download, "verify", lambda file, path: None)
    archive = published.cifar10_archive(published.cifar10(1)[0])
    (_, refused), growth = fuzz(memory_path, "cifar-10-binary.tar.gz", [archive], 8)
    assert refused > 1000
    assert growth < 32 << 20
