"""ImageNet (ILSVRC-2012) as the paper's Tiny ImageNet: the centre square at 64x64 RGB; train 1,281,167, valid 50,000.

Labels are the places of the classes' WordNet ids in sorted order, as is usual. ali_fast.images states how a square is
cut and resized. Nothing is unpacked: an index of byte ranges is made once from the tars' headers, and workers read and
decode one image at a time.

Source: https://image-net.org (needs an account): ILSVRC2012_img_train.tar (a tar of one tar a class),
ILSVRC2012_img_val.tar, ILSVRC2012_devkit_t12.tar.gz (imagenet_devkit.py). The tars are checked by their published
sizes, their headers, the number of images, and every image's decoding, not by their published md5s: that would be to
read 145 GB once more.
Never run here on the real files: only on small ones made in their formats.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ali_fast.errors import InputError
from ali_fast.images import decode_square
from data_prep.archives import Range
from data_prep.download import folder_of
from data_prep.imagenet_devkit import ARCHIVE as DEVKIT
from data_prep.imagenet_devkit import validation_classes
from data_prep.located import Loose, Names, Packed, tar_members
from data_prep.printable import printable
from data_prep.split import Sample, Split

SIZE = 64
COUNTS = {"train": 1_281_167, "valid": 50_000}
CLASS_COUNT = 1000
TRAIN_TAR, VALID_TAR = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"
# Sizes: TensorFlow Datasets, url_checksums/imagenet2012.txt.
TAR_BYTES = {TRAIN_TAR: 147_897_477_120, VALID_TAR: 6_744_924_160}
FORMATS = ("JPEG", "PNG")  # one of the training set's .JPEG files, n02105855_2933, is a PNG
WNID = re.compile(r"n\d{8}")
VALID_NAME = re.compile(r"ILSVRC2012_val_(\d{8})\.JPEG")
HOW = (
    f"give a folder with --source that holds {TRAIN_TAR} (or train/ with a folder or a tar for each class), "
    f"{VALID_TAR} and {DEVKIT} (or val/ with a folder for each class); they need an account at https://image-net.org"
)


def open_source(source: Path | None, downloads: Path) -> dict[str, Split]:
    """The official train and validation sets; what `source` holds is in HOW.

    Raises InputError: not there, not the published size, another number of classes or images, a ground truth that
    does not fit.
    """
    if source is None:
        raise InputError(f"ImageNet has no public address; {HOW}")
    folder = folder_of(source, (TRAIN_TAR, VALID_TAR, DEVKIT))
    assert folder is not None
    print(f"listing the images of {printable(str(folder))}", flush=True)
    wnids, train, train_labels = _train(folder)
    if len(wnids) != CLASS_COUNT:
        raise InputError(f"{folder}: {len(wnids)} classes to train on, {CLASS_COUNT} are expected")
    valid, classes = _valid(folder)
    if strange := sorted(set(classes) - set(wnids)):
        raise InputError(f"{folder}: validation images of {strange[0]}, a class the training images do not have")
    valid_labels = np.searchsorted(wnids, classes)
    digests = {"train listing": train.names.sha256(), "val listing": valid.names.sha256()}
    splits = {}
    for name, images, labels in (("train", train, train_labels), ("valid", valid, valid_labels)):
        if len(images.names) != COUNTS[name]:
            raise InputError(f"{folder}: {len(images.names)} {name} images, {COUNTS[name]} are expected")
        read = Reader(images, labels.astype(np.int16))
        splits[name] = Split(
            count=COUNTS[name],
            image_shape=(SIZE, SIZE, 3),
            read=read,
            classes=tuple(wnids),
            source_sha256=digests,
            name=images.names.label,
        )
    return splits


def _train(folder: Path) -> tuple[list[str], Loose | Packed, np.ndarray]:
    """(sorted WordNet ids, the images by class and name, their labels)."""
    if (folder / "train").is_dir():
        tars = sorted(path for path in (folder / "train").iterdir() if _wnid(path.stem) and path.suffix == ".tar")
        if not tars:
            return _class_folders(folder / "train")
        inner = [(which, Range(tar.name, 0, tar.stat().st_size)) for which, tar in enumerate(tars)]
    else:
        tars = [_tar(folder, TRAIN_TAR)]
        inner = [(0, member) for member in tar_members(tars[0])]
    wnids, counts = [], []

    def members() -> Iterator[tuple[int, Range]]:
        for which, part in inner:
            wnid = part.name.removesuffix(".tar")
            if not _wnid(wnid):
                raise InputError(f"{TRAIN_TAR}: {part.name!r} where a class's tar, such as n01440764.tar, is expected")
            images = tar_members(tars[which], part.offset, part.offset + part.size, part.name)
            wnids.append(wnid)
            counts.append(len(images))
            yield from ((which, image) for image in images)

    packed = Packed.of(tuple(tars), members())
    return wnids, packed, np.repeat(np.arange(len(wnids)), counts)


def _valid(folder: Path) -> tuple[Loose | Packed, list[str]]:
    """(the images by name, the WordNet id of each)."""
    unpacked = folder / "val"
    if unpacked.is_dir():
        names = sorted(os.listdir(unpacked))
        if any(_wnid(name) for name in names):
            wnids, images, labels = _class_folders(unpacked)
            order = sorted(range(len(labels)), key=lambda index: images.names[index].rpartition("/")[2])
            return Loose(unpacked, Names(images.names[index] for index in order)), [wnids[labels[i]] for i in order]
        loose = Names(name for name in names if VALID_NAME.fullmatch(name))
        return Loose(unpacked, loose), _ground_truth(folder, loose)
    tar = _tar(folder, VALID_TAR)
    packed = Packed.of((tar,), ((0, member) for member in tar_members(tar)))
    return packed, _ground_truth(folder, packed.names)


def _ground_truth(folder: Path, names: Names) -> list[str]:
    classes = validation_classes(folder)
    for index in range(len(names)):
        match = VALID_NAME.fullmatch(names[index])
        if match is None or int(match[1]) != index + 1:
            raise InputError(f"{folder}: {names[index]!r} where validation image {index + 1} is expected")
    if len(classes) != len(names):
        raise InputError(f"{folder}: {len(names)} validation images, the ground truth of {DEVKIT} has {len(classes)}")
    return classes


def _tar(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.is_file():
        raise InputError(f"--source {folder}: no {name} there; {HOW}")
    if path.stat().st_size != TAR_BYTES[name]:
        raise InputError(f"{path}: {path.stat().st_size} bytes, the published one has {TAR_BYTES[name]}: cut short?")
    return path


def _class_folders(folder: Path) -> tuple[list[str], Loose, np.ndarray]:
    wnids = sorted(name for name in os.listdir(folder) if _wnid(name) and (folder / name).is_dir())
    counts = []

    def names() -> Iterator[str]:
        for wnid in wnids:
            inside = sorted(name for name in os.listdir(folder / wnid) if name.lower().endswith((".jpeg", ".jpg")))
            counts.append(len(inside))
            yield from (f"{wnid}/{name}" for name in inside)

    loose = Loose(folder, Names(names()))
    return wnids, loose, np.repeat(np.arange(len(wnids)), counts)


def _wnid(name: str) -> bool:
    return WNID.fullmatch(name) is not None


@dataclass(frozen=True)
class Reader:
    images: Loose | Packed
    labels: np.ndarray  # int16 [N]

    def __call__(self, index: int) -> Sample:
        data, name = self.images.read(index)
        return Sample(decode_square(data, name, SIZE, 3, formats=FORMATS), int(self.labels[index]))
