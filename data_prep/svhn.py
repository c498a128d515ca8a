"""SVHN, format 2 (cropped digits): 32x32 RGB; train 73,257, test 26,032, extra 531,131. Label 10 stands for 0.

Source: Y. Netzer et al., *Reading Digits in Natural Images with Unsupervised Feature Learning* (2011). A file has X,
uint8 [32, 32, 3, N] in column-major order, so that an image's 3,072 bytes lie together, and y [N, 1], 1 to 10.
ALI trains on extra and validates on train, so there is no split of that name.
Never run here on the real files: only on files made in their format. Takes 1.9 GB of temporary disk for the pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ali_fast.errors import InputError
from data_prep.download import Published, folder_of, obtain
from data_prep.matfile import Variable, variables
from data_prep.split import Sample, Split
from data_prep.spool import Spool

# The publisher gives no digests. Sizes and sha256: TensorFlow Datasets, url_checksums/svhn_cropped.txt. The transport
# is plain http; the digest is what says that the file is the right one.
BASE = "http://ufldl.stanford.edu/housenumbers/"
FILES = {
    "train": Published(
        "train_32x32.mat",
        182_040_794,
        "435e94d69a87fde4fd4d7f3dd208dfc32cb6ae8af2240d066de1df7508d083b8",
        BASE,
    ),
    "test": Published(
        "test_32x32.mat",
        64_275_384,
        "cdce80dfb2a2c4c6160906d0bd7c68ec5a99d7ca4831afa54f09182025b6a75b",
        BASE,
    ),
    "extra": Published(
        "extra_32x32.mat",
        1_329_278_602,
        "a133a4beb38a00fcdda90c9489e0c04f900b660ce8a316a5e854838379a71eb3",
        BASE,
    ),
}
COUNTS = {"train": 73_257, "test": 26_032, "extra": 531_131}
IMAGE_BYTES = 32 * 32 * 3
CLASSES = tuple("0123456789")


def open_source(source: Path | None, downloads: Path) -> dict[str, Split]:
    """`source`: a folder of the three .mat files; without it, they are downloaded (1.6 GB).

    Raises InputError: not there, not the published files, another number or shape of images, a label outside 1..10.
    """
    folder = folder_of(source, [file.name for file in FILES.values()])
    paths = {split: obtain(file, folder, downloads) for split, file in FILES.items()}
    return {split: _open_split(split, path, Spool(downloads)) for split, path in paths.items()}


def _open_split(split: str, path: Path, spool: Spool) -> Split:
    count = COUNTS[split]
    labels = None
    with path.open("rb") as file:
        for variable in variables(file, path.name):
            if variable.name == "X" and spool.size == 0:
                _check_shape(path, variable, (32, 32, 3, count))
                variable.stream(spool.write)
            elif variable.name == "y":
                _check_shape(path, variable, (count, 1))
                labels = variable.values(count)[:, 0]
    if labels is None or spool.size != count * IMAGE_BYTES:
        raise InputError(f"{path}: no variable {'X' if labels is not None else 'y'} in it")
    wrong = np.flatnonzero((labels < 1) | (labels > 10) | (labels != np.floor(labels)))
    if len(wrong):
        raise InputError(f"{path}, image {wrong[0]}: label {labels[wrong[0]]}, should be 1 to 10")
    reader = _Reader(spool, (labels % 10).astype(np.uint8))
    return Split(count, (32, 32, 3), reader, CLASSES, source_sha256={path.name: FILES[split].sha256})


def _check_shape(path: Path, variable: Variable, shape: tuple[int, ...]) -> None:
    if variable.shape != shape:
        raise InputError(f"{path}: {variable.name} is {list(variable.shape)}, should be {list(shape)}")


@dataclass(frozen=True)
class _Reader:
    spool: Spool
    labels: np.ndarray  # uint8 [N], 0 to 9

    def __call__(self, index: int) -> Sample:
        image = np.frombuffer(self.spool.read(index * IMAGE_BYTES, IMAGE_BYTES), np.uint8).reshape(3, 32, 32)
        return Sample(np.ascontiguousarray(image.transpose(2, 1, 0)), int(self.labels[index]))  # was [C, W, H]
