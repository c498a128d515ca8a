"""The 1,797 handwritten digits that scikit-learn brings, 8x8, gray: train 1,297, valid 200, test 300, in file order.

Source: E. Alpaydin, C. Kaynak, *Optical Recognition of Handwritten Digits* (UCI, 1998), its test set. A pixel there is
a count from 0 to 16; here it is scaled to 0 to 255 and rounded.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from ali_fast.errors import InputError
from data_prep.split import Split, in_memory

BOUNDS = {"train": (0, 1297), "valid": (1297, 1497), "test": (1497, 1797)}


def open_source(source: Path | None, downloads: Path) -> dict[str, Split]:
    """The three splits. There is nothing to download and no source to give."""
    if source is not None:
        raise InputError(f"--source {source}: the digits come with scikit-learn; leave --source out")
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.round(bunch.images * (255 / 16)).astype(np.uint8)[..., None]
    labels = bunch.target.astype(np.int64)
    assert images.shape == (1797, 8, 8, 1)
    digest = {"digits": hashlib.sha256(bunch.images.tobytes() + labels.tobytes()).hexdigest()}
    classes = tuple(map(str, range(10)))
    return {
        name: in_memory(images[low:high], labels[low:high], classes, digest) for name, (low, high) in BOUNDS.items()
    }
