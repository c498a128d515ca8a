"""What a source gives the writer: a split, and its samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import numpy as np


class Sample(NamedTuple):
    """One sample: an image uint8 [H, W, C] (or a point, two floats), and what is known of it."""

    image: np.ndarray
    label: int | None = None
    attributes: np.ndarray | None = None  # uint8 [A], 0 or 1


@dataclass(frozen=True)
class Split:
    """A source's split: `read(i)` gives sample i of `count`, in any order and process, or raises InputError naming it.

    image_shape is (H, W, C), or (2,) for points; every sample has a label if there are classes, attributes if there are
    attribute_names. source_sha256 names the files it came from. name(i) is what the source calls sample i. Where
    every_fault, a sample that cannot be read is not the end: all of them are looked for, to be told at once.
    """

    count: int
    image_shape: tuple[int, ...]
    read: Callable[[int], Sample]
    classes: tuple[str, ...] = ()
    attribute_names: tuple[str, ...] = ()
    source_sha256: dict[str, str] = field(default_factory=dict)
    name: Callable[[int], str] = str
    every_fault: bool = False


def in_memory(
    images: np.ndarray, labels: np.ndarray, classes: tuple[str, ...], source_sha256: dict[str, str] | None = None
) -> Split:
    """The split of arrays that are here: uint8 [N, H, W, C] or points [N, 2], and integer labels [N] in `classes`."""
    return Split(
        count=len(images),
        image_shape=images.shape[1:],
        read=partial(_read, images, labels),
        classes=classes,
        source_sha256=source_sha256 or {},
    )


def _read(images: np.ndarray, labels: np.ndarray, index: int) -> Sample:
    return Sample(images[index], int(labels[index]))
