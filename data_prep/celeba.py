"""CelebA, aligned: 178x218 JPEG resized to 64x78 (Lanczos), rows 7 to 70 kept: 64x64 RGB, and 40 attributes, 0 or 1.

Source: Z. Liu et al., *Deep Learning Face Attributes in the Wild* (2015). list_attr_celeba.txt: the number of images,
the attributes' names, then a line "000001.jpg -1 1 ..." an image; list_eval_partition.txt: "000001.jpg 0", with 0, 1, 2
for train 162,770 / valid 19,867 / test 19,962. Resized as the paper's code does (Fuel's celeba_64).
Never run here on the real files: only on files made in their formats.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ali_fast.errors import InputError
from ali_fast.images import decode, flatten
from data_prep.archives import ZipEntry, read_zip_entry, zip_entries
from data_prep.download import Published, folder_of, verify
from data_prep.located import Loose, Names
from data_prep.split import Sample, Split

# The publisher gives no digests. Sizes and sha256: TensorFlow Datasets, url_checksums/celeb_a.txt.
IMAGES = Published(
    "img_align_celeba.zip", 1_443_490_838, "46fb89443c578308acf364d7d379fe1b9efb793042c0af734b6112e4fd3a8c74"
)
ATTRIBUTES = Published(
    "list_attr_celeba.txt", 26_721_026, "f0e5da289d5ccf75ffe8811132694922b60f2af59256ed362afa03fefba324d0"
)
PARTITION = Published(
    "list_eval_partition.txt", 2_836_386, "fc955bcb3ef8fbdf7d5640d9a8693a8431b5f2ee291a5c1449a1549e7e073fe7"
)
COUNTS = {"train": 162_770, "valid": 19_867, "test": 19_962}
ATTRIBUTE_COUNT = 40
SIZE = (178, 218)  # width, height
RESIZED, FIRST_ROW, ROWS = (64, 78), 7, 64
MAX_IMAGE_BYTES = 1 << 20  # real ones take 40,000 at most
FOLDER = "img_align_celeba"
HOW = (
    f"CelebA has no address to download from; get {IMAGES.name}, {ATTRIBUTES.name} and {PARTITION.name} from "
    "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html (Google Drive) and give their folder with --source"
)


def open_source(source: Path | None, downloads: Path) -> dict[str, Split]:
    """`source`: a folder with the zip (or the folder unpacked from it) and the two lists, each there or in the
    publisher's Img, Anno and Eval.

    Raises InputError: a file missing or not the published one, another number of images, lists that disagree.
    """
    if source is None:
        raise InputError(HOW)
    folder = folder_of(source, (IMAGES.name, ATTRIBUTES.name, PARTITION.name))
    assert folder is not None
    digests = {}
    for file, place in ((ATTRIBUTES, "Anno"), (PARTITION, "Eval")):
        verify(file, _find(folder, place, file.name))
        digests[file.name] = file.sha256
    names, images, attributes = parse_attributes(_find(folder, "Anno", ATTRIBUTES.name).read_bytes())
    partition = parse_partition(_find(folder, "Eval", PARTITION.name).read_bytes())
    if list(partition) != images:
        raise InputError(f"{PARTITION.name} and {ATTRIBUTES.name} do not list the same images in the same order")
    parts = np.fromiter(partition.values(), np.uint8, len(partition))
    for number, (split, count) in enumerate(COUNTS.items()):
        if (found := int((parts == number).sum())) != count:
            raise InputError(f"{PARTITION.name}: {found} images in {split}, {count} are expected")

    unpacked = next((path for path in (folder / FOLDER, folder / "Img" / FOLDER) if path.is_dir()), None)
    if unpacked and not (folder / IMAGES.name).exists():
        loose = Loose(unpacked, Names(images))
        digests[FOLDER] = loose.sha256()
        pictures: _Zip | Loose = loose
    else:
        path = _find(folder, "Img", IMAGES.name)
        verify(IMAGES, path)
        digests[IMAGES.name] = IMAGES.sha256
        pictures = _Zip.of(path, images)
    splits = {}
    for number, (split, count) in enumerate(COUNTS.items()):
        read = _Reader(pictures, np.flatnonzero(parts == number), attributes)
        splits[split] = Split(
            count=count,
            image_shape=(ROWS, RESIZED[0], 3),
            read=read,
            attribute_names=names,
            source_sha256=digests,
            name=read.name,
        )
    return splits


def _find(folder: Path, place: str, name: str) -> Path:
    for path in (folder / name, folder / place / name):
        if path.is_file():
            return path
    raise InputError(f"--source {folder}: no {name} there; {HOW}")


def parse_attributes(text: bytes) -> tuple[tuple[str, ...], list[str], np.ndarray]:
    """(attribute names, image names, uint8 [N, 40] of 0 and 1) of list_attr_celeba.txt."""
    lines = text.split(b"\n")
    names = tuple(_word(word, ATTRIBUTES.name, 2) for word in (lines[1].split() if len(lines) > 1 else ()))
    if len(set(names)) != ATTRIBUTE_COUNT or len(names) != ATTRIBUTE_COUNT:
        raise InputError(f"{ATTRIBUTES.name}, line 2: {len(names)} attribute names, {ATTRIBUTE_COUNT} are expected")
    rows = [line for line in lines[2:] if line.strip()]
    if lines[0].strip() != b"%d" % len(rows):
        raise InputError(f"{ATTRIBUTES.name}: {len(rows)} images, its first line says {lines[0].strip()[:20]!r}")
    images, values = [], np.empty((len(rows), ATTRIBUTE_COUNT), np.uint8)
    for row, line in enumerate(rows):
        words = line.split()
        images.append(_image_name(words[0], ATTRIBUTES.name, row + 3))
        if len(words) != 1 + ATTRIBUTE_COUNT or not set(words[1:]) <= {b"1", b"-1"}:
            raise InputError(f"{ATTRIBUTES.name}, line {row + 3}: not {ATTRIBUTE_COUNT} values of -1 or 1")
        values[row] = [word == b"1" for word in words[1:]]
    return names, images, values


def parse_partition(text: bytes) -> dict[str, int]:
    """Image name -> 0, 1 or 2 of list_eval_partition.txt, in its order."""
    partition: dict[str, int] = {}
    for number, line in enumerate(text.split(b"\n"), 1):
        if not (words := line.split()):
            continue
        name = _image_name(words[0], PARTITION.name, number)
        if len(words) != 2 or words[1] not in (b"0", b"1", b"2") or name in partition:
            raise InputError(f"{PARTITION.name}, line {number}: not a new image name and 0, 1 or 2")
        partition[name] = int(words[1])
    return partition


def _word(word: bytes, file: str, line: int) -> str:
    if not re.fullmatch(rb"[\x21-\x7e]{1,64}", word):
        raise InputError(f"{file}, line {line}: {word[:20]!r} is not a name")
    return word.decode("ascii")


def _image_name(word: bytes, file: str, line: int) -> str:
    if not re.fullmatch(rb"\d{6}\.jpg", word):
        raise InputError(f"{file}, line {line}: {word[:20]!r} is not an image name such as 000001.jpg")
    return word.decode("ascii")


@dataclass(frozen=True)
class _Zip:
    path: Path
    entries: np.ndarray  # int64 [N, 5]: ZipEntry without its name
    names: Names

    @staticmethod
    def of(path: Path, images: list[str]) -> _Zip:
        rows = {name: row for row, name in enumerate(images)}
        entries = np.full((len(images), 5), -1, np.int64)
        for entry in zip_entries(path):
            row = rows.get(entry.name.rpartition("/")[2])
            if row is not None:
                if entry.size > MAX_IMAGE_BYTES:
                    raise InputError(f"{path}: {entry.name!r} of {entry.size} bytes")
                entries[row] = entry[1:]
        absent = np.flatnonzero(entries[:, 0] < 0)
        if len(absent):
            raise InputError(f"{path}: {len(absent)} of {len(images)} images are not in it, first {images[absent[0]]}")
        return _Zip(path, entries, Names(images))

    def read(self, index: int) -> tuple[bytes, str]:
        name = self.names[index]
        return read_zip_entry(self.path, ZipEntry(name, *self.entries[index].tolist()), MAX_IMAGE_BYTES), name


@dataclass(frozen=True)
class _Reader:
    pictures: _Zip | Loose
    rows: np.ndarray  # int64 [count]: this split's among all images
    attributes: np.ndarray  # uint8 [N, 40]

    def __call__(self, index: int) -> Sample:
        row = int(self.rows[index])
        data, name = self.pictures.read(row)
        image = decode(data, name, formats=("JPEG",), size=SIZE)
        resized = image.resize(RESIZED, Image.Resampling.LANCZOS)
        return Sample(flatten(resized, 3)[FIRST_ROW : FIRST_ROW + ROWS], None, self.attributes[row])

    def name(self, index: int) -> str:
        return self.pictures.names[int(self.rows[index])]
