import hashlib
import io
import pickle
import zipfile

import fuzzing
import numpy as np
import published
import pytest
from PIL import Image

from ali_fast.errors import InputError
from data_prep import celeba
from data_prep.download import Published

COUNTS = (6, 3, 2)
PUBLISHED = {
    "img_align_celeba.zip": "IMAGES",
    "list_attr_celeba.txt": "ATTRIBUTES",
    "list_eval_partition.txt": "PARTITION",
}


@pytest.fixture
def open_files(monkeypatch, tmp_path):
    """Opens files (name -> bytes) as if they were the published ones."""

    def open_files(files, places=None):
        for name, data in files.items():
            if name in PUBLISHED:
                file = Published(name, len(data), hashlib.sha256(data).hexdigest())
                monkeypatch.setattr(celeba, PUBLISHED[name], file)
        monkeypatch.setattr(celeba, "COUNTS", dict(zip(celeba.COUNTS, COUNTS, strict=True)))
        source = tmp_path / hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest()
        published.put(source, {(places or {}).get(name, "") + name: data for name, data in files.items()})
        return celeba.open_source(source, tmp_path / "downloads")

    return open_files


@pytest.fixture
def made():
    return published.celeba(COUNTS)


def lanczos(x: np.ndarray) -> np.ndarray:
    return np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0)


def resized(image: Image.Image) -> np.ndarray:
    """64x78 by two matrix products, rows 7 to 70."""

    def weights(size: int, length: int) -> np.ndarray:
        scale = length / size
        table = lanczos((np.arange(length) + 0.5 - (np.arange(size) + 0.5)[:, None] * scale) / scale)
        return table / table.sum(1, keepdims=True)

    across = np.tensordot(np.asarray(image, float), weights(64, 178), (1, 1)).round().clip(0, 255)
    return np.tensordot(weights(78, 218), across, (1, 0)).transpose(0, 2, 1).round().clip(0, 255)[7:71]


def test_published_numbers():
    assert celeba.COUNTS == {"train": 162_770, "valid": 19_867, "test": 19_962}
    assert sum(celeba.COUNTS.values()) == 202_599


@pytest.mark.parametrize("layout", ["flat", "as published", "unpacked", "stored"])
def test_every_pixel_and_attribute(open_files, made, layout):
    files, images, attributes = made
    places = {}
    if layout == "as published":
        places = {"img_align_celeba.zip": "Img/", "list_attr_celeba.txt": "Anno/", "list_eval_partition.txt": "Eval/"}
    with zipfile.ZipFile(io.BytesIO(files["img_align_celeba.zip"])) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    if layout == "unpacked":
        del files["img_align_celeba.zip"]
        files |= {name: data for name, data in members.items() if not name.endswith("/")}
    if layout == "stored":
        files["img_align_celeba.zip"] = published.zipped(members, zipfile.ZIP_STORED)
    splits = open_files(files, places)
    assert {name: split.count for name, split in splits.items()} == {"train": 6, "valid": 3, "test": 2}
    row = 0
    for split in splits.values():
        assert (split.image_shape, split.classes) == ((64, 64, 3), ())
        assert split.attribute_names == tuple(published.ATTRIBUTES)
        copy = pickle.loads(pickle.dumps(split))
        for index in range(split.count):
            sample = copy.read(index)
            assert sample.image.shape == (64, 64, 3)
            assert np.abs(sample.image - resized(images[row])).max() <= 1
            assert sample.label is None
            assert sample.attributes.dtype == np.uint8
            np.testing.assert_array_equal(sample.attributes, attributes[row])
            row += 1


def test_splits_follow_the_partition_whatever_its_order(open_files, made):
    files, images, _ = made
    lines = files["list_eval_partition.txt"].decode().splitlines()
    parts = [2, 0, 1, 0, 0, 1, 0, 0, 2, 0, 1]
    lines = [f"{line.split()[0]} {part}" for line, part in zip(lines, parts, strict=True)]
    splits = open_files(files | {"list_eval_partition.txt": "\n".join(lines).encode()})
    found = splits["test"].read(1).image
    assert np.abs(found - resized(images[8])).max() <= 1


def test_without_a_source_it_says_where_to_get_it(tmp_path):
    with pytest.raises(InputError, match=r"https://mmlab.*--source"):
        celeba.open_source(None, tmp_path)
    with pytest.raises(InputError, match="not a folder"):
        celeba.open_source(tmp_path / "absent", tmp_path)
    with pytest.raises(InputError, match=r"no list_attr_celeba.txt there"):
        celeba.open_source(tmp_path, tmp_path)


def test_wrong_files(open_files, made):
    files, *_ = made
    attributes, partition = files["list_attr_celeba.txt"].decode(), files["list_eval_partition.txt"].decode()

    def refused(message, read=None, **changed):
        names = {"zip": "img_align_celeba.zip", "attr": "list_attr_celeba.txt", "part": "list_eval_partition.txt"}
        changed = {names[key]: data if isinstance(data, bytes) else data.encode() for key, data in changed.items()}
        with pytest.raises(InputError, match=message):
            splits = open_files(files | changed)
            splits[read or "train"].read(0)

    refused("images, its first line says b'11'", attr=attributes.replace("000004.jpg", "000004.jpg\n000004.jpg"))
    refused("39 attribute names, 40", attr=attributes.replace("Attribute_3 ", ""))
    refused("40 attribute names, 40", attr=attributes.replace("Attribute_3 ", "Attribute_4 "))
    refused(
        "line 3: not 40 values",
        attr=attributes.replace("000001.jpg  1", "000001.jpg  0").replace("000001.jpg -1", "000001.jpg  0"),
    )
    refused("line 4: b'../02.jpg' is not an image name", attr=attributes.replace("000002.jpg", "../02.jpg"))
    refused("line 5: not a new image name and 0, 1 or 2", part=partition.replace("000005.jpg 0", "000005.jpg 3"))
    refused("line 5: not a new image name", part=partition.replace("000005.jpg", "000004.jpg"))
    refused("7 images in train, 6 are expected", part=partition.replace("000008.jpg 1", "000008.jpg 0"))
    refused("do not list the same images", part=partition.replace("000011.jpg 2", "000012.jpg 2"))
    with zipfile.ZipFile(io.BytesIO(files["img_align_celeba.zip"])) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    absent = {name: data for name, data in members.items() if "000004" not in name}
    refused("1 of 11 images are not in it, first 000004.jpg", zip=published.zipped(absent))
    small = published.encode(published.photograph(0, 178, 200))
    refused(
        "image 000001.jpg: 178 x 200 pixels", zip=published.zipped(members | {"img_align_celeba/000001.jpg": small})
    )
    half = members["img_align_celeba/000001.jpg"][:3000]
    refused("image 000001.jpg: .*truncated", zip=published.zipped(members | {"img_align_celeba/000001.jpg": half}))
    huge = {"img_align_celeba/000001.jpg": bytes(celeba.MAX_IMAGE_BYTES + 1)}
    refused("of 1048577 bytes", zip=published.zipped(members | huge))


def test_another_file_than_the_published_one_is_refused(open_files, made, tmp_path):
    files, *_ = made
    open_files(files)
    for name in files:
        source = published.put(tmp_path / name, files | {name: files[name] + b"\n"})
        with pytest.raises(InputError, match=f"the published {name} has"):
            celeba.open_source(source, tmp_path)


def test_fuzz_lists():
    files, *_ = published.celeba((3, 2, 1))
    words = [b" 1", b"-1", b"\n", b"000001.jpg ", b"../../x.jpg 1", b" 2\n", b"\r\n", b"9" * 400, "ä".encode(), b"\0"]
    for parse, name in (
        (celeba.parse_attributes, "list_attr_celeba.txt"),
        (celeba.parse_partition, "list_eval_partition.txt"),
    ):
        inputs = list(fuzzing.mutations([files[name]], 2500, 10, words))
        (_, refused), growth = fuzzing.in_child(lambda p=parse, i=inputs: fuzzing.only_input_errors(p, i))
        assert refused > 1200
        assert growth < 16 << 20


def test_fuzz_whole(monkeypatch, memory_path):
    """The zip and both lists, through to the pixels."""
    files, *_ = published.celeba((2, 1, 1))
    monkeypatch.setattr(celeba, "COUNTS", {"train": 2, "valid": 1, "test": 1})
    monkeypatch.setattr(celeba, "verify", lambda file, path: None)
    published.put(memory_path, files)

    def parse_with(name):
        def parse(data):
            (memory_path / name).write_bytes(data)
            for split in celeba.open_source(memory_path, memory_path).values():
                for index in range(split.count):
                    assert split.read(index).image.shape == (64, 64, 3)

        return parse

    def fuzz():
        return [
            fuzzing.only_input_errors(parse_with(name), [*fuzzing.mutations([data], 300, 11), data])
            for name, data in files.items()
        ]

    counts, growth = fuzzing.in_child(fuzz)
    assert all(accepted >= 1 and refused > 100 for accepted, refused in counts)
    assert growth < 32 << 20
