"""Equally many samples of each class, by seed."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ali_fast.errors import InputError

Rows = npt.NDArray[np.int64]


def balanced_draws(labels: Rows, classes: tuple[str, ...], total: int, count: int, seed: int) -> list[Rows]:
    """`count` draws of `total` rows of `labels`, class by class; draw i depends on (seed, i) alone.

    Raises InputError where `total` is no multiple of the number of classes, or a class is too small.
    """
    per_class, rest = divmod(total, len(classes))
    if rest or per_class < 1:
        near = max(1, per_class) * len(classes)
        raise InputError(f"--labels {total}: must be a multiple of the {len(classes)} classes, such as {near}")
    of_class = [np.flatnonzero(labels == label) for label in range(len(classes))]
    least = min(range(len(classes)), key=lambda label: len(of_class[label]))
    if len(of_class[least]) < per_class:
        raise InputError(
            f"--labels {total} takes {per_class} of each class, and class {classes[least]!r} has "
            f"{len(of_class[least])} labelled images; take at most {len(of_class[least]) * len(classes)}"
        )

    def draw(i: int) -> Rows:
        shuffled = [np.random.default_rng([seed, i, k]).permutation(rows) for k, rows in enumerate(of_class)]
        return np.concatenate([rows[:per_class] for rows in shuffled])

    return [draw(i) for i in range(count)]
