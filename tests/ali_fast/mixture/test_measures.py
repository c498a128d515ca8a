"""Coverage, divergences and discrepancies against closed forms."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from ali_fast.mixture import grid, measures


def at(*components, offset=(0.0, 0.0)):
    return torch.tensor(grid.MEANS[list(components)] + np.array(offset))


def test_the_grid_is_the_papers():
    assert sorted(map(tuple, grid.MEANS)) == [(a, b) for a in range(-4, 5, 2) for b in range(-4, 5, 2)]
    points, components = grid.sample(200_000, np.random.default_rng(0))
    offsets = points - grid.MEANS[components]
    assert np.allclose(np.cov(offsets.T), 0.05**2 * np.eye(2), atol=5e-5)
    counts = np.bincount(components, minlength=25)
    assert counts.min() > 7600  # of 8000, within five standard deviations
    assert counts.max() < 8400


def test_points_are_assigned_by_bayes_rule():
    generator = np.random.default_rng(0)
    x = generator.uniform(-5, 5, (2000, 2))
    logs = np.stack([multivariate_normal.logpdf(x, mean, 0.05**2 * np.eye(2)) for mean in grid.MEANS], axis=1)
    component, distance = measures.assign(torch.from_numpy(x))
    assert np.array_equal(component.numpy(), logs.argmax(axis=1))
    best = logs.max(axis=1)  # log density = -d^2/2 - log(2 pi 0.05^2)
    assert np.allclose(distance.numpy() ** 2 / 2, -best - math.log(2 * math.pi * 0.05**2))


def test_modes_counts_assigned_and_near_samples():
    """Three samples at a mean, one assigned but far, one just inside and one just outside three standard deviations."""
    x = torch.cat([at(0, 0, 7), at(12, offset=(0.5, 0)), at(24, offset=(0.1499, 0)), at(20, offset=(0, 0.1501))])
    found = measures.modes(x)
    assert found.covered == 5
    assert found.near == 3
    assert found.high_quality == pytest.approx(4 / 6)
    # shares 2/6, 1/6 x 4 of all; 2/4, 1/4, 1/4 of the near ones
    assert found.reverse_kl == pytest.approx(1 / 3 * math.log(25 / 3) + 4 / 6 * math.log(25 / 6))
    assert found.reverse_kl_near == pytest.approx(1 / 2 * math.log(25 / 2) + 1 / 2 * math.log(25 / 4))
    assert found.forward_kl == math.inf


def test_divergences_are_zero_for_equal_shares_and_known_for_two_levels():
    assert measures.modes(at(*range(25))).reverse_kl == pytest.approx(0, abs=1e-15)
    twice = measures.modes(at(*range(25), *range(10)))  # 10 components with 2/35, 15 with 1/35
    assert twice.reverse_kl == pytest.approx(20 / 35 * math.log(50 / 35) + 15 / 35 * math.log(25 / 35))
    assert twice.forward_kl == pytest.approx(10 / 25 * math.log(35 / 50) + 15 / 25 * math.log(35 / 25))


def test_samples_of_the_mixture_itself_score_as_they_should():
    x = torch.from_numpy(grid.sample(100_000, np.random.default_rng(1))[0])
    found = measures.modes(x)
    assert (found.covered, found.near) == (25, 25)
    assert found.high_quality == pytest.approx(1 - math.exp(-9 / 2), abs=0.002)  # Rayleigh
    assert found.reverse_kl == pytest.approx(24 / 2 / 100_000, abs=2e-4)  # half a chi-square of 24


def test_far_away_samples_are_still_assigned():
    found = measures.modes(torch.tensor([[1e4, 1e4], [-1e4, 1e4]]))
    assert (found.covered, found.near, found.high_quality) == (2, 0, 0.0)
    assert math.isnan(found.reverse_kl_near)


def test_mmd_of_two_gaussians_is_the_closed_form():
    """E exp(-|a - b|^2 / 2h^2) of a ~ N(m, s^2 I), b ~ N(n, t^2 I) in D dimensions is
    (h^2 / v)^(D/2) exp(-|m - n|^2 / 2v) with v = h^2 + s^2 + t^2."""
    generator = torch.Generator().manual_seed(0)
    shift, s, t, d = torch.tensor([0.7, -0.2]), 1.0, 0.6, 2

    def mean_kernel(distance2, variance):
        terms = [
            (h * h / (h * h + variance)) ** (d / 2) * math.exp(-distance2 / (2 * (h * h + variance)))
            for h in measures.BANDWIDTHS
        ]
        return sum(terms) / len(terms)

    distance2 = float(shift.square().sum())
    expected = mean_kernel(0, 2 * s * s) + mean_kernel(0, 2 * t * t) - 2 * mean_kernel(distance2, s * s + t * t)
    estimates = []
    for _ in range(10):
        a = s * torch.randn(800, d, generator=generator)
        b = shift + t * torch.randn(700, d, generator=generator)
        estimates.append(measures.mmd2(a, b))
    assert np.mean(estimates) == pytest.approx(expected, abs=4 * np.std(estimates) / math.sqrt(10))
    assert np.std(estimates) < 0.1 * expected


def test_mmd_is_the_double_sum_without_the_diagonal():
    a, b = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 3.0]]), torch.tensor([[0.5, 0.5], [2.0, -1.0]])

    def k(p, q):
        squared = float((p - q).square().sum())
        return sum(math.exp(-squared / (2 * h * h)) for h in measures.BANDWIDTHS) / len(measures.BANDWIDTHS)

    within_a = sum(k(p, q) for i, p in enumerate(a) for j, q in enumerate(a) if i != j) / 6
    within_b = sum(k(p, q) for i, p in enumerate(b) for j, q in enumerate(b) if i != j) / 2
    between = sum(k(p, q) for p in a for q in b) / 6
    assert measures.mmd2(a, b) == pytest.approx(within_a + within_b - 2 * between, rel=1e-12)


def test_mmd_of_equal_distributions_is_near_zero_and_splits_the_sum_evenly(monkeypatch):
    generator = torch.Generator().manual_seed(1)
    a, b = torch.randn(700, 2, generator=generator), torch.randn(700, 2, generator=generator)
    whole = measures.mmd2(a, b)
    assert abs(whole) < 2e-3
    monkeypatch.setattr(measures, "CHUNK", 64)
    assert measures.mmd2(a, b) == pytest.approx(whole, abs=1e-12)


def test_reconstruction_is_squared_distance_and_share_of_kept_components():
    x = at(0, 5, 9, 20)
    x_hat = torch.cat([at(0, offset=(0.3, 0.4)), at(5), at(8), at(20, offset=(0.9, 0))])
    found = measures.reconstruction(x, x_hat)
    assert found.error == pytest.approx((0.25 + 0 + 4 + 0.81) / 4)
    assert found.same_component == 0.75
