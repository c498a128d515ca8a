"""The mixture itself: 25 equally likely Gaussians on the grid {-4, -2, 0, 2, 4}^2, covariance 0.05^2 I. NumPy only."""

from __future__ import annotations

import itertools

import numpy as np

STD = 0.05
MEANS = np.array(list(itertools.product((-4.0, -2.0, 0.0, 2.0, 4.0), repeat=2)))
"""float64 [25, 2]; the first coordinate varies slowest."""
NAMES = tuple(f"{a:g},{b:g}" for a, b in MEANS)


def sample(count: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Points float64 [count, 2] and the component of each, int64 [count]."""
    components = generator.integers(len(MEANS), size=count)
    return MEANS[components] + STD * generator.standard_normal((count, 2)), components
