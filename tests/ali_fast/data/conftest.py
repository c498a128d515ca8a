"""Small splits, written by the project's writer from arrays that the tests keep to compare with."""

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from data_prep.split import Sample, Split
from data_prep.writer import write_splits


class Made(NamedTuple):
    path: Path
    images: np.ndarray
    labels: np.ndarray | None
    attributes: np.ndarray | None


def make_split(
    folder: Path,
    count: int = 103,
    shape: tuple[int, ...] = (6, 5, 3),
    classes: int = 10,
    attributes: int = 0,
    seed: int = 0,
) -> Made:
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(count, 2)) if shape == (2,) else rng.integers(0, 256, (count, *shape), np.uint8)
    labels = rng.integers(0, classes, count) if classes else None
    marks = rng.integers(0, 2, (count, attributes), np.uint8) if attributes else None

    def read(i: int) -> Sample:
        return Sample(images[i], None if labels is None else int(labels[i]), None if marks is None else marks[i])

    path = folder / "made" / "train.beton"
    names = tuple(f"a{i}" for i in range(attributes))
    split = Split(count, shape, read, tuple(map(str, range(classes))), names, {"arrays": "0" * 64})
    write_splits({path: split})
    return Made(path, images, labels, marks)


@pytest.fixture
def ram(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory if there is one: a disk takes milliseconds to write a file over, thousands of times."""
    shm = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shm if os.access(shm, os.W_OK) else tmp_path) as folder:
        yield Path(folder)


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Made]:
    return lambda folder=tmp_path, **options: make_split(folder, **options)
