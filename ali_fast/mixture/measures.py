"""How well points cover the mixture, and how far two sets of points are apart. Everything in float64 on the CPU.

The paper counts a mode as covered as soon as one of 10,000 samples falls to it by the mixture's responsibilities.
Later work (PacGAN, Lin et al., NeurIPS 2018) asks for a sample within three standard deviations, for the share of such
samples ("high quality"), and for the KL divergence of the modes' histogram from that of the data.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ali_fast.mixture.grid import MEANS, STD

NEAR = 3.0
"""Standard deviations within which a sample is of high quality."""
BANDWIDTHS = (2.0, 1.0, 0.5, 0.25, 0.125)
"""Of the Gaussian kernels whose mean `mmd2` takes, from the grid's scale to a component's; each half the one before."""
CHUNK = 1000


class Modes(NamedTuple):
    """Of samples [N, 2]. The divergences are in nats, of discrete distributions over the 25 components."""

    covered: int
    """Components with a sample assigned by responsibility."""
    near: int
    """Components with an assigned sample within NEAR standard deviations."""
    high_quality: float
    """Share of samples within NEAR standard deviations of their component's mean."""
    reverse_kl: float
    """KL(histogram of all samples over components || uniform)."""
    reverse_kl_near: float
    """The same of the high-quality samples alone, as PacGAN's code has them; nan if there are none."""
    forward_kl: float
    """KL(uniform || histogram of all samples): infinite as soon as a component has none."""


def assign(x: Tensor) -> tuple[Tensor, Tensor]:
    """The component most responsible for each of x [N, 2], int64 [N], and the distance to it in standard deviations.

    The components weigh the same and have one width, so that is the nearest mean's, also where every density
    underflows.
    """
    distances = torch.cdist(x.double(), torch.from_numpy(MEANS), compute_mode="donot_use_mm_for_euclid_dist") / STD
    distance, component = distances.min(dim=1)
    return component, distance


def modes(x: Tensor) -> Modes:
    """Of finite samples [N, 2]."""
    component, distance = assign(x)
    counts = torch.bincount(component, minlength=len(MEANS)).double()
    is_near = distance <= NEAR
    near = torch.bincount(component[is_near], minlength=len(MEANS)).double()
    return Modes(
        covered=int((counts > 0).sum()),
        near=int((near > 0).sum()),
        high_quality=float(is_near.double().mean()),
        reverse_kl=kl(counts, torch.ones_like(counts)),
        reverse_kl_near=kl(near, torch.ones_like(near)),
        forward_kl=kl(torch.ones_like(counts), counts),
    )


def kl(p: Tensor, q: Tensor) -> float:
    """KL(p || q) in nats of two histograms, which need not be normalized."""
    p, q = p / p.sum(), q / q.sum()
    return float(torch.where(p > 0, p * (p / q).log(), p).sum())


class Reconstruction(NamedTuple):
    """Of points by what comes back of them."""

    error: float
    """Mean of |x - x_hat|^2."""
    same_component: float
    """Share of points whose reconstruction falls to the component that they fall to."""


def reconstruction(x: Tensor, x_hat: Tensor) -> Reconstruction:
    """x, x_hat: [N, 2]."""
    same = assign(x)[0] == assign(x_hat)[0]
    error = (x.double() - x_hat.double()).square().sum(dim=1).mean()
    return Reconstruction(float(error), float(same.double().mean()))


def mmd2(a: Tensor, b: Tensor) -> float:
    """The unbiased estimate of the squared maximum mean discrepancy of two samples [N, D], [M, D]; it can be negative.

    The kernel is the mean of Gaussians exp(-|a - b|^2 / (2 h^2)) over BANDWIDTHS (Gretton et al., A Kernel Two-Sample
    Test, JMLR 2012, equation 3).
    """
    n, m = len(a), len(b)
    within_a = (_kernel_sum(a, a) - n) / (n * (n - 1))
    within_b = (_kernel_sum(b, b) - m) / (m * (m - 1))
    return within_a + within_b - 2 * _kernel_sum(a, b) / (n * m)


def _kernel_sum(a: Tensor, b: Tensor) -> float:
    a, b = a.double(), b.double()
    total = 0.0
    for rows in a.split(CHUNK):
        squares = rows.square().sum(dim=1, keepdim=True) + b.square().sum(dim=1)
        kernel = torch.addmm(squares, rows, b.T, alpha=-2).div_(-2 * BANDWIDTHS[0] ** 2).exp_()
        total += float(kernel.sum())
        for _ in BANDWIDTHS[1:]:  # half the bandwidth: the fourth power; never a slow denormal number
            kernel.clamp_min_(1e-70).square_().square_()
            total += float(kernel.sum())
    return total / len(BANDWIDTHS)
