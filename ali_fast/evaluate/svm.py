"""The paper's semi-supervised protocol: an L2-SVM on few labels, many draws (section 4.3; after Radford et al., 2015).

C is one of 50 values e^t, t from -20 to 20, and chosen by the error on held-out training images after training on a
draw of its own. Then each class-balanced draw of N labels trains an SVM whose error is read on the test set.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from joblib import Parallel, delayed
from rich.console import Console
from sklearn.exceptions import ConvergenceWarning
from sklearn.svm import LinearSVC

from ali_fast.data.balanced import Rows
from ali_fast.evaluate.progress import follow

GRID = np.exp(np.linspace(-20, 20, 50))

Features = npt.NDArray[np.float32]


class Scores(NamedTuple):
    """Errors are shares in [0, 1]."""

    c: float
    held_out_error: float
    test_errors: list[float]


def reduced(features: npt.NDArray[np.floating]) -> tuple[np.ndarray, np.ndarray | None]:
    """`features` [n, d] in an orthonormal basis of their own span, and the basis [d, n] (None where d <= n).

    An SVM's weights lie in that span and lengths stay, so the problem is the same and d / n times smaller.
    """
    exact = features.astype(np.float64)
    if exact.shape[1] <= len(exact):
        return exact, None
    basis, triangle = np.linalg.qr(exact.T)
    return np.ascontiguousarray(triangle.T), basis


def fit(features: np.ndarray, labels: Rows, c: float) -> tuple[np.ndarray, np.ndarray]:
    """One L2-SVM (squared hinge) against the rest for each class: weights [K, d] and intercepts [K]."""
    # The primal needs no random numbers, and converges on nearly the whole grid, where the dual stops far from it.
    svm = LinearSVC(C=c, loss="squared_hinge", dual=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # at C = e^15 and above
        svm.fit(features, labels)
    if len(svm.classes_) == 2:
        return np.concatenate([-svm.coef_, svm.coef_]), np.concatenate([-svm.intercept_, svm.intercept_])
    return svm.coef_, svm.intercept_


def error(
    train: tuple[np.ndarray, np.ndarray | None], labels: Rows, c: float, others: Features, other_labels: Rows
) -> float:
    """Share of `others` that an SVM trained on `train` (of `reduced`) gets wrong. Labels are 0 to K - 1, all seen."""
    rotated, basis = train
    weights, intercepts = fit(rotated, labels, c)
    if basis is not None:
        weights = weights @ basis.T
    scores = others @ weights.T.astype(np.float32) + intercepts.astype(np.float32)
    return float((scores.argmax(axis=1) != other_labels).mean())


def protocol(
    pool: tuple[Features, Rows],
    draws: list[Rows],
    held_out: tuple[Features, Rows],
    test: tuple[Features, Rows],
    *,
    jobs: int,
    title: str,
    console: Console,
) -> Scores:
    """Choose C after training on the first of `draws`, then measure with the others.

    pool, held_out, test: features [N, D] and labels [N]; draws index the pool.
    """
    features, labels = pool
    first = reduced(features[draws[0]])
    choosing = [delayed(error)(first, labels[draws[0]], c, *held_out) for c in GRID]
    errors = list(follow(_run(choosing, jobs), len(GRID), f"{title}: choosing C", console))
    best = int(np.argmin(errors))  # the first: of equals, the smallest C
    c = float(GRID[best])
    measuring = [delayed(_draw_error)(features, labels, rows, c, *test) for rows in draws[1:]]
    measured = list(follow(_run(measuring, jobs), len(measuring), f"{title}: draws", console))
    return Scores(c, errors[best], measured)


def _draw_error(features: Features, labels: Rows, rows: Rows, c: float, test: Features, test_labels: Rows) -> float:
    return error(reduced(features[rows]), labels[rows], c, test, test_labels)


def _run(tasks: list[Any], jobs: int) -> Iterable[float]:
    """In processes, which large arrays reach as one mapped file."""
    return Parallel(n_jobs=jobs, return_as="generator")(tasks)
