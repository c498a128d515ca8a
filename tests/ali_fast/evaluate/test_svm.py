import io

import numpy as np
import pytest
from rich.console import Console
from sklearn.svm import LinearSVC

from ali_fast.data.balanced import balanced_draws
from ali_fast.evaluate import svm

QUIET = Console(file=io.StringIO())

CLASSES = tuple("abc")


def blobs(count, dimensions, seed=0, noise=2.0, classes=3):
    """Gaussians around fixed centres: float32 [count, D], labels [count]."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(classes, dimensions))
    labels = np.arange(count) % classes
    return (centres[labels] + noise * rng.normal(size=(count, dimensions))).astype(np.float32), labels


@pytest.mark.parametrize("dimensions", [5, 300])
@pytest.mark.parametrize("classes", [2, 3])
def test_in_its_own_span_the_problem_is_the_same(dimensions, classes):
    train, labels = blobs(60, dimensions, classes=classes)
    others, theirs = blobs(500, dimensions, seed=1, classes=classes)
    rotated, basis = svm.reduced(train)
    assert (basis is None) == (dimensions == 5)
    np.testing.assert_allclose(rotated @ rotated.T, train.astype(float) @ train.astype(float).T, rtol=1e-9, atol=1e-8)
    plain = LinearSVC(C=1e-2, dual=False, tol=1e-10, max_iter=10_000).fit(train, labels)
    weights, _ = svm.fit(rotated, labels, 1e-2)
    weights = weights if basis is None else weights @ basis.T
    np.testing.assert_allclose(weights[-len(plain.coef_) :], plain.coef_, atol=2e-3)
    error = svm.error(svm.reduced(train), labels, 1e-2, others, theirs)
    assert error == pytest.approx((plain.predict(others) != theirs).mean(), abs=0.004)


def test_protocol_chooses_on_held_out_images_and_measures_each_draw(monkeypatch):
    monkeypatch.setattr(svm, "GRID", svm.GRID[::7])
    pool, held_out, test = blobs(300, 40), blobs(90, 40, seed=1), blobs(120, 40, seed=2)
    draws = balanced_draws(pool[1], CLASSES, 30, 4, seed=0)
    scores = svm.protocol(pool, draws, held_out, test, jobs=1, title="features", console=QUIET)
    by_c = [svm.error(svm.reduced(pool[0][draws[0]]), pool[1][draws[0]], c, *held_out) for c in svm.GRID]
    assert scores.held_out_error == min(by_c)
    assert scores.c == svm.GRID[np.argmin(by_c)]
    assert len(scores.test_errors) == 3
    for draw, error in zip(draws[1:], scores.test_errors, strict=True):
        plain = LinearSVC(C=scores.c, dual=False).fit(pool[0][draw], pool[1][draw])
        assert error == pytest.approx((plain.predict(test[0]) != test[1]).mean(), abs=0.01)
    assert np.mean(scores.test_errors) < 0.4
    assert scores == svm.protocol(pool, draws, held_out, test, jobs=2, title="features", console=QUIET)


def test_the_grid_is_the_papers():
    assert len(svm.GRID) == 50
    assert svm.GRID[[0, -1]] == pytest.approx([np.exp(-20), np.exp(20)])
