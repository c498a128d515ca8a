"""Each source through `prepare` to a .beton and back: what a run would train on."""

import hashlib

import numpy as np
import published
import pytest
from PIL import Image

from ali_fast.data.beton import Beton
from ali_fast.data.schema import beton_path
from ali_fast.errors import InputError
from data_prep import celeba, cifar10, imagenet64, prepare, svhn
from data_prep.download import Published


def make_cifar10(source, monkeypatch):
    monkeypatch.setattr(cifar10, "FILE_RECORDS", 8)
    monkeypatch.setattr(cifar10, "VALID_RECORDS", 8)
    published.put(source, published.cifar10(8)[0])


def make_svhn(source, monkeypatch):
    counts = {"train": 9, "test": 5, "extra": 80}
    mats = {f"{split}_32x32.mat": published.svhn(count)[0] for split, count in counts.items()}
    files = {name[:-10]: Published(name, len(data), hashlib.sha256(data).hexdigest()) for name, data in mats.items()}
    monkeypatch.setattr(svhn, "COUNTS", counts)
    monkeypatch.setattr(svhn, "FILES", files)
    published.put(source, mats)


def make_celeba(source, monkeypatch):
    files, *_ = published.celeba((5, 3, 2))
    monkeypatch.setattr(celeba, "COUNTS", {"train": 5, "valid": 3, "test": 2})
    for name in ("IMAGES", "ATTRIBUTES", "PARTITION"):
        file = getattr(celeba, name).name
        monkeypatch.setattr(celeba, name, Published(file, len(files[file]), hashlib.sha256(files[file]).hexdigest()))
    published.put(source, files)


def make_imagenet64(source, monkeypatch):
    monkeypatch.setattr(imagenet64, "CLASS_COUNT", 3)
    monkeypatch.setattr(imagenet64, "COUNTS", {"train": 9, "valid": 2})
    train = {wnid: published.tar(members) for wnid, members in published.imagenet_train(3).items()}
    jpeg = published.encode(published.photograph(7, 500, 375))
    published.put(source, {f"train/{wnid}.tar": data for wnid, data in train.items()})
    published.put(source / "val", {f"ILSVRC2012_val_{n:08d}.JPEG": jpeg for n in (1, 2)})
    published.put(source, published.imagenet_devkit([3, 1]))


def make_folder(source, monkeypatch):
    published.put(
        source,
        {
            f"{'ab'[n % 2]}/{n}.png": published.encode(Image.new("RGB", (20 + n, 30), (n, n, n)), "PNG")
            for n in range(12)
        },
    )


SOURCES = {
    "cifar10": (make_cifar10, {}, {"train": 32, "valid": 8, "test": 8}),
    "svhn": (make_svhn, {}, {"train": 9, "test": 5, "extra": 80}),
    "celeba": (make_celeba, {}, {"train": 5, "valid": 3, "test": 2}),
    "imagenet64": (make_imagenet64, {}, {"train": 9, "valid": 2}),
    "folder": (make_folder, {"size": 16, "channels": 1}, {"train": 10, "valid": 1, "test": 1}),
}


@pytest.mark.parametrize("dataset", SOURCES)
def test_from_source_to_beton_and_back(dataset, tmp_path, monkeypatch):
    make, options, counts = SOURCES[dataset]
    source, data_dir = tmp_path / "source", tmp_path / "data"
    make(source, monkeypatch)
    module = {"cifar10": cifar10, "svhn": svhn, "celeba": celeba, "imagenet64": imagenet64}.get(dataset)
    manifests = prepare(dataset, source=source, data_dir=data_dir, **options)
    assert {manifest.split: manifest.count for manifest in manifests} == counts
    if module is None:
        from data_prep import folder as module
    splits = module.open_source(source, tmp_path / "other", **options)
    for manifest in manifests:
        beton = Beton(beton_path(data_dir, dataset, manifest.split))
        beton.verify()
        expected = [splits[manifest.split].read(index) for index in range(manifest.count)]
        np.testing.assert_array_equal(beton.arrays("image", 0, manifest.count), [s.image for s in expected])
        if manifest.attributes:
            np.testing.assert_array_equal(
                beton.arrays("attributes", 0, manifest.count), [s.attributes for s in expected]
            )
        if manifest.classes:
            np.testing.assert_array_equal(beton.metadata["label"], [s.label for s in expected])
        beton.close()
    leftovers = [path.name for path in data_dir.rglob("*") if path.name.startswith(".spool") or path.suffix == ".part"]
    assert leftovers == []


def test_a_broken_image_ends_in_its_name_and_nothing_that_looks_finished(tmp_path, monkeypatch):
    make_folder(tmp_path / "source", monkeypatch)
    (tmp_path / "source" / "a" / "4.png").write_bytes(b"\x89PNG no")
    with pytest.raises(InputError, match=r"1 of 12 images cannot be read: a/4\.png: "):
        prepare("folder", source=tmp_path / "source", data_dir=tmp_path, size=16)
    assert not list(tmp_path.glob("folder/train*"))
