"""Against closed forms and scipy's matrix square root."""

import numpy as np
import pytest
from scipy.linalg import sqrtm

from ali_fast.evaluate.distances import frechet, frechet_of_moments, precision_recall


def gaussian(seed, dimensions=6, rank=None):
    rng = np.random.default_rng(seed)
    factor = rng.normal(size=(dimensions, rank or dimensions + 3))
    return rng.normal(size=dimensions), factor @ factor.T


@pytest.mark.parametrize("rank", [None, 3])
def test_frechet_of_two_gaussians(rank):
    (m, c), (n, d) = gaussian(0, rank=rank), gaussian(1)
    expected = np.square(m - n).sum() + np.trace(c + d - 2 * sqrtm(c @ d).real)
    assert frechet_of_moments(m, c, n, d) == pytest.approx(expected, rel=1e-6)
    assert frechet_of_moments(n, d, m, c) == pytest.approx(expected, rel=1e-6)
    assert frechet_of_moments(m, c, m, c) == pytest.approx(0, abs=1e-6 * np.trace(c))


def test_frechet_of_commuting_gaussians():
    a, b = np.array([1.0, 4.0, 9.0]), np.array([4.0, 1.0, 16.0])
    expected = 3 * 2.0**2 + np.square(np.sqrt(a) - np.sqrt(b)).sum()
    assert frechet_of_moments(np.zeros(3), np.diag(a), np.full(3, 2.0), np.diag(b)) == pytest.approx(expected)


def test_frechet_of_sets_takes_their_means_and_covariances():
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(500, 4)), 1 + 2 * rng.normal(size=(300, 4))
    c, d = np.cov(a.T), np.cov(b.T)
    expected = np.square(a.mean(0) - b.mean(0)).sum() + np.trace(c + d - 2 * sqrtm(c @ d).real)
    assert frechet(a.astype(np.float32), b.astype(np.float32)) == pytest.approx(expected, rel=1e-5)


def test_frechet_is_blind_to_a_common_rotation():
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(400, 5)) * [1, 2, 3, 4, 5], rng.normal(size=(400, 5)) + 1
    turned, _ = np.linalg.qr(rng.normal(size=(5, 5)))
    assert frechet(a @ turned, b @ turned) == pytest.approx(frechet(a, b))


def line(*points):
    return np.array(points, dtype=float)[:, None]


def test_precision_and_recall_counted_by_hand():
    """On a line, with one neighbour: real balls reach [-1, 2] (radius 1 around 0 and 1) and [9, 12]."""
    real = line(0, 1, 10, 11)
    samples = line(0.5, 1.9, 2.1, 30)  # balls: 0.5 +- 1.4, 1.9 +- 0.2, 2.1 +- 0.2, 30 +- 27.9
    found = precision_recall(real, samples, neighbours=1)
    assert found.precision == 2 / 4  # 0.5 and 1.9
    assert found.recall == 4 / 4  # 0 and 1 near 0.5; 10 and 11 inside the ball around 30
    assert precision_recall(real, line(0.4, 0.6, 0.5, 0.45), neighbours=1).recall == 0


def test_equal_sets_cover_each_other_and_far_ones_do_not():
    a = np.random.default_rng(4).normal(size=(1200, 3))  # more than one chunk
    assert precision_recall(a, a) == (1, 1)
    assert precision_recall(a, a + 100) == (0, 0)


def test_one_mode_is_precise_and_recalls_half():
    rng = np.random.default_rng(5)
    one, two = rng.normal(size=(400, 3)), rng.normal(size=(400, 3)) + 50
    found = precision_recall(np.concatenate([one, two]), rng.normal(size=(400, 3)))
    assert found.precision > 0.9
    assert found.recall == pytest.approx(0.5, abs=0.05)
