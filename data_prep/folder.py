"""Anyone's images, as squares of one size: the rule for sizes and modes is that of ali_fast.images.

Images are looked for as ali_fast.images.list_images does. If every image lies in one of two or more sub-folders, those
are the classes, in the order of their names; if none does, there are no labels. The images, sorted by path, are
shuffled by the seed; the first ones are test, the next ones valid, the rest train.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ali_fast.data.schema import prepare_command
from ali_fast.errors import InputError
from ali_fast.images import SUFFIXES, decode_square, list_images
from data_prep.located import Loose, Names
from data_prep.printable import printable
from data_prep.split import Sample, Split

VALID_FRACTION = TEST_FRACTION = 0.1
MAX_CLASSES = 32_767


def open_source(
    source: Path | None, downloads: Path, *, size: int | None = None, channels: int = 3, seed: int = 0
) -> dict[str, Split]:
    """Splits of size x size images with 1 or 3 channels, at least one image each.

    Raises InputError: no folder, no images, too few, images both beside and inside class folders, a wrong option.
    """
    if source is None or not source.is_dir():
        what = "" if source is None else f"; {source} is not one"
        raise InputError(f"folder needs --source, a folder of images{what}")
    if size is None:
        line = prepare_command(downloads)  # it is where a beton would be
        raise InputError(f"folder needs --preset, the one to be trained: images are resized to what it takes: {line}")
    if not 1 <= size <= 1024 or channels not in (1, 3):
        raise InputError(f"size {size}, channels {channels}: 1 to 1024, and 1 or 3, are accepted")
    if seed < 0:
        raise InputError(f"seed {seed}: 0 or more")
    paths = sorted(list_images(source))
    if not paths:
        raise InputError(f"{source}: not one image in it; files ending in {', '.join(SUFFIXES)} are looked for")
    classes, labels = _classes(source, paths)
    images = Loose(source, Names(paths))
    count = len(paths)
    order = np.random.default_rng(seed).permutation(count)
    tests, valids = (max(1, round(fraction * count)) for fraction in (TEST_FRACTION, VALID_FRACTION))
    if count <= tests + valids:
        raise InputError(
            f"{source}: too few images ({count}): one each to train on, to validate and to test is the least"
        )
    print(f"reading {count:,} images of {printable(str(source))} for their sha256", flush=True)
    digests = {"listing": images.sha256(), "contents": images.contents_sha256()}
    bounds = {"train": (tests + valids, count), "valid": (tests, tests + valids), "test": (0, tests)}
    splits = {}
    for split, (low, high) in bounds.items():
        read = _Reader(images, labels, order[low:high], size, channels)
        splits[split] = Split(
            count=high - low,
            image_shape=(size, size, channels),
            read=read,
            classes=classes,
            source_sha256=digests,
            name=read.name,
            every_fault=True,
        )
    return splits


def _classes(source: Path, paths: list[str]) -> tuple[tuple[str, ...], np.ndarray | None]:
    """(class names, int16 [N] labels), or ((), None) without class folders."""
    tops = [path.partition("/")[0] if "/" in path else "" for path in paths]
    classes = sorted(set(tops))
    if len(classes) < 2:
        return (), None
    if classes[0] == "":
        raise InputError(
            f"{source}: images both in it ({paths[tops.index('')]}) and in sub-folders ({classes[1]}): "
            "move all of them into class folders, or all into one folder"
        )
    if len(classes) > MAX_CLASSES:
        raise InputError(f"{source}: {len(classes)} class folders, at most {MAX_CLASSES} are accepted")
    number = {name: label for label, name in enumerate(classes)}
    return tuple(classes), np.array([number[top] for top in tops], np.int16)


@dataclass(frozen=True)
class _Reader:
    images: Loose
    labels: np.ndarray | None  # int16, of all images
    rows: np.ndarray  # int64: this split's among all images
    size: int
    channels: int

    def __call__(self, index: int) -> Sample:
        row = int(self.rows[index])
        data, name = self.images.read(row)
        pixels = decode_square(data, name, self.size, self.channels, upright=True)
        return Sample(pixels, None if self.labels is None else int(self.labels[row]))

    def name(self, index: int) -> str:
        return self.images.names.label(int(self.rows[index]))
