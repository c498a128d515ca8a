"""The paper's 2-D mixture: 100,000 training points of 25 Gaussians on a grid, 10,000 valid, 10,000 test.

A sample is a point (two float64) and the number of its component. Each split has a random stream of its own, so the
held-out points do not depend on the number of training points.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ali_fast.errors import InputError
from ali_fast.mixture.grid import NAMES, sample
from data_prep.split import Split, in_memory

COUNTS = {"train": 100_000, "valid": 10_000, "test": 10_000}
SEED = 2017


def open_source(source: Path | None, downloads: Path) -> dict[str, Split]:
    """The three splits, drawn here: always the same. There is no source to give."""
    if source is not None:
        raise InputError(f"--source {source}: the mixture is drawn, not read; leave --source out")
    splits = {}
    for stream, (name, count) in enumerate(COUNTS.items()):
        points, components = sample(count, np.random.default_rng([SEED, stream]))
        splits[name] = in_memory(points, components, NAMES)
    return splits
