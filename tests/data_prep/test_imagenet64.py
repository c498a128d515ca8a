import io
import multiprocessing
import os
import pickle
from concurrent.futures import ProcessPoolExecutor

import fuzzing
import numpy as np
import published
import pytest
from PIL import Image

from ali_fast.errors import InputError
from data_prep import imagenet64, imagenet_devkit
from data_prep.archives import tar_ranges

PER_CLASS = 4
TRUTH = [1, 3, 2, 2, 1]  # ILSVRC2012_IDs of the validation images
LABELS = [published.WNIDS.index(published.SYNSETS[number]) for number in TRUTH]


@pytest.fixture(scope="module")
def made():
    """(WordNet id -> file name -> bytes, validation file name -> bytes, development kit)."""
    valid = {
        f"ILSVRC2012_val_{n:08d}.JPEG": published.encode(published.photograph(90 + n, 500, 375))
        for n in range(1, len(TRUTH) + 1)
    }
    return published.imagenet_train(PER_CLASS), valid, published.imagenet_devkit(TRUTH)


@pytest.fixture
def scaled_down(monkeypatch):
    monkeypatch.setattr(imagenet64, "CLASS_COUNT", 3)
    monkeypatch.setattr(imagenet64, "COUNTS", {"train": 3 * PER_CLASS, "valid": len(TRUTH)})


def lay_out(folder, made, layout, monkeypatch):
    train, valid, devkit = made
    files = {}
    inner = {f"{wnid}.tar": published.tar(members) for wnid, members in reversed(train.items())}
    if layout == "tars":
        files["ILSVRC2012_img_train.tar"] = published.tar(inner)
        files["ILSVRC2012_img_val.tar"] = published.tar(dict(reversed(valid.items())))
        files["ILSVRC2012_devkit_t12.tar.gz"] = published.tar(devkit, mode="w:gz")
    elif layout == "class tars, flat validation folder":
        files |= {f"train/{name}": data for name, data in inner.items()}
        files |= {f"val/{name}": data for name, data in valid.items()} | devkit
    elif layout == "class folders":
        files |= {f"train/{wnid}/{name}": data for wnid, members in train.items() for name, data in members.items()}
        wnids = [published.SYNSETS[number] for number in TRUTH]
        files |= {f"val/{wnid}/{name}": data for wnid, (name, data) in zip(wnids, valid.items(), strict=True)}
    published.put(folder, files)
    sizes = {name: len(files[name]) for name in imagenet64.TAR_BYTES if name in files}
    monkeypatch.setattr(imagenet64, "TAR_BYTES", sizes)
    return folder


def reference(data: bytes) -> np.ndarray:
    """The centre square of a whole decoding, by Pillow's own resize in float: no DCT scaling, no 8-bit rounding."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    side = min(image.size)
    left, top = (image.size[0] - side) / 2, (image.size[1] - side) / 2
    planes = [
        np.asarray(plane.convert("F").resize((64, 64), Image.Resampling.HAMMING, (left, top, left + side, top + side)))
        for plane in image.split()
    ]
    return np.stack(planes, -1)


def test_published_numbers():
    assert imagenet64.COUNTS == {"train": 1_281_167, "valid": 50_000}
    assert imagenet64.CLASS_COUNT == 1000
    assert imagenet64.TAR_BYTES == {
        "ILSVRC2012_img_train.tar": 147_897_477_120,
        "ILSVRC2012_img_val.tar": 6_744_924_160,
    }


@pytest.mark.parametrize("layout", ["tars", "class tars, flat validation folder", "class folders"])
def test_every_image_and_label(made, scaled_down, monkeypatch, tmp_path, layout):
    train, valid, _ = made
    splits = imagenet64.open_source(lay_out(tmp_path / "s", made, layout, monkeypatch), tmp_path / "downloads")
    expected = {
        "train": [(data, label) for label, wnid in enumerate(sorted(train)) for _, data in sorted(train[wnid].items())],
        "valid": list(zip(valid.values(), LABELS, strict=True)),
    }
    assert splits.keys() == expected.keys()
    for name, split in splits.items():
        assert (split.count, split.image_shape) == (len(expected[name]), (64, 64, 3))
        assert split.classes == tuple(sorted(train))
        copy = pickle.loads(pickle.dumps(split))
        with ProcessPoolExecutor(2, multiprocessing.get_context("fork")) as pool:
            samples = list(pool.map(copy.read, range(split.count), timeout=60))
        for sample, (data, label) in zip(samples, expected[name], strict=True):
            difference = np.abs(sample.image - reference(data))
            assert difference.mean() < 1
            assert difference.max() < 25
            assert sample.label == label
            assert sample.image.dtype == np.uint8
    assert not (tmp_path / "downloads").exists(), "nothing is put aside"


def test_wrong_sources(made, scaled_down, monkeypatch, tmp_path):
    train, valid, _ = made

    def refused(message, layout="tars", files=(), remove=(), keep_sizes=False):
        source = lay_out(tmp_path / str(len(list(tmp_path.iterdir()))), made, layout, monkeypatch)
        published.put(source, dict(files))
        for name in remove:
            (source / name).unlink()
        if not keep_sizes:
            sizes = {name: len(data) for name, data in dict(files).items()}
            monkeypatch.setattr(imagenet64, "TAR_BYTES", imagenet64.TAR_BYTES | sizes)
        with pytest.raises(InputError, match=message):
            splits = imagenet64.open_source(source, tmp_path)
            for split in splits.values():
                for index in range(split.count):
                    split.read(index)

    train_tar, valid_tar, kit = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar", "ILSVRC2012_devkit_t12.tar.gz"
    inner = {f"{wnid}.tar": published.tar(members) for wnid, members in train.items()}
    refused("no ILSVRC2012_img_train.tar there; give a folder", remove=[train_tar])
    refused("no ILSVRC2012_img_val.tar there; give a folder", remove=[valid_tar])
    refused("need ILSVRC2012_devkit_t12.tar.gz beside them", remove=[kit])
    refused("bytes, the published one has", files={train_tar: b"x"}, keep_sizes=True)
    refused("2 classes to train on, 3 are expected", files={train_tar: published.tar(dict(list(inner.items())[:2]))})
    refused("'x.txt' where a class's tar", files={train_tar: published.tar(inner | {"x.txt": b""})})
    fewer = {name: data for name, data in train["n01440764"].items() if name != "n01440764_36.JPEG"}
    refused(
        "11 train images, 12 are expected",
        files={train_tar: published.tar(inner | {"n01440764.tar": published.tar(fewer)})},
    )
    cut = {"n01440764.tar": inner["n01440764.tar"][:20_000]}
    refused("n01440764.tar: .*does not fit", files={train_tar: published.tar(inner | cut)})
    broken = published.tar(train["n01440764"] | {"n01440764_36.JPEG": b"\xff\xd8\xff\xe0 no"})
    refused("image n01440764_36.JPEG", files={train_tar: published.tar(inner | {"n01440764.tar": broken})})
    renamed = {name.replace("00000002", "00000009"): data for name, data in valid.items()}
    refused("where validation image 2 is expected", files={valid_tar: published.tar(renamed)})
    refused(
        "5 validation images, the ground truth of .* has 4",
        files={kit: published.tar(published.imagenet_devkit(TRUTH[:4]), mode="w:gz")},
    )
    refused(
        "validation images of n00001740, a class",
        files={kit: published.tar(published.imagenet_devkit([1001, *TRUTH[1:]]), mode="w:gz")},
    )
    refused(
        "line 2: b'77' is not an ILSVRC2012_ID",
        files={kit: published.tar(published.imagenet_devkit([1, 77]), mode="w:gz")},
    )
    refused("not both of", files={kit: published.tar({"x": b""}, mode="w:gz")})
    with pytest.raises(InputError, match="no public address; give a folder with --source"):
        imagenet64.open_source(None, tmp_path)


def test_the_index_of_many_images_is_small(tmp_path):
    """A tar of 20,000 images of no bytes: about 60 bytes of memory each, once listed."""
    header = published.tar({"n01440764_00000.JPEG": b""})[:512]
    with (tmp_path / "n01440764.tar").open("wb") as file:
        for number in range(20_000):
            head = bytearray(header)
            head[10:15] = b"%05d" % number
            head[148:156] = b"%06o\0 " % (sum(head) - sum(head[148:156]) + 8 * 32)
            file.write(head)
        file.write(bytes(1024))
    members = imagenet64.tar_members(tmp_path / "n01440764.tar")
    packed = imagenet64.Packed.of((tmp_path / "n01440764.tar",), ((0, member) for member in members))
    assert len(packed.names) == 20_000
    assert packed.names[19_999] == "n01440764_19999.JPEG"
    assert len(pickle.dumps(packed)) < 60 * 20_000


def test_fuzz_devkit():
    kit = published.imagenet_devkit(TRUTH)
    meta, truth = (
        kit[f"ILSVRC2012_devkit_t12/{imagenet_devkit.META}"],
        kit[f"ILSVRC2012_devkit_t12/{imagenet_devkit.TRUTH}"],
    )
    synsets = imagenet_devkit.parse_synsets(meta)
    assert synsets == published.SYNSETS

    def fuzz():
        words = [b"\n1\n", b" 2", b"-1\n", b"9" * 5000, "١".encode(), b"1e3\n"]
        inputs = fuzzing.mutations([truth], 2000, 12, words)
        return (
            fuzzing.only_input_errors(imagenet_devkit.parse_synsets, fuzzing.mutations([meta], 2000, 13)),
            fuzzing.only_input_errors(lambda data: imagenet_devkit.parse_ground_truth(data, synsets), inputs),
        )

    counts, growth = fuzzing.in_child(fuzz)
    assert all(refused > 800 for _, refused in counts)
    assert growth < 32 << 20


def test_fuzz_nested_tars(made, scaled_down, monkeypatch, memory_path):
    tiny = {
        wnid: {name: published.encode(published.photograph(1, 20, 16)) for name in members}
        for wnid, members in made[0].items()
    }
    lay_out(memory_path, (tiny, made[1], made[2]), "tars", monkeypatch)
    path = memory_path / "ILSVRC2012_img_train.tar"
    original = path.read_bytes()
    starts = [m.offset for m in tar_ranges(io.BytesIO(original), "t")]

    def parse(data: bytes) -> None:
        path.write_bytes(data)
        imagenet64.TAR_BYTES[path.name] = len(data)
        _, images, labels = imagenet64._train(memory_path)
        for index in range(len(labels)):
            imagenet64.Reader(images, labels)(index)

    def inputs():
        for number, head in enumerate(fuzzing.mutations([original[at : at + 2000] for at in [0, *starts]], 600, 14)):
            at = [0, *starts][number % (len(starts) + 1)]
            yield original[:at] + head.ljust(2000, b"\0")[:2000] + original[at + 2000 :]

    def fuzz():
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        return fuzzing.only_input_errors(parse, inputs())

    (accepted, refused), growth = fuzzing.in_child(fuzz)
    assert refused > 150
    assert accepted > 30
    assert growth < 64 << 20
