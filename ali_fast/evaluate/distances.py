"""Distances between two sets of feature vectors: Frechet (Heusel et al., 2017), precision and recall
(Kynkaanniemi et al., *Improved Precision and Recall*, 2019). Features are float [N, D]; computed in float64."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

NEIGHBOURS = 3  # the paper's k
CHUNK = 1000  # rows of a distance matrix at once

Vectors = npt.NDArray[np.floating]


class PrecisionRecall(NamedTuple):
    """Share of samples inside the real images' manifold, and of real images inside the samples'."""

    precision: float
    recall: float


def frechet(a: Vectors, b: Vectors) -> float:
    """|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)) of the Gaussians fitted to a [N, D] and b [M, D]."""
    (mean_a, cov_a), (mean_b, cov_b) = (_moments(v) for v in (a, b))
    return frechet_of_moments(mean_a, cov_a, mean_b, cov_b)


def frechet_of_moments(mean_a: Vectors, cov_a: Vectors, mean_b: Vectors, cov_b: Vectors) -> float:
    """Means [D], covariances [D, D]. (C_a C_b)^(1/2) has the trace of (R C_b R)^(1/2), R = C_a^(1/2): symmetric."""
    values, vectors = np.linalg.eigh(cov_a)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    inner = np.linalg.eigvalsh(root @ cov_b @ root)
    cross = np.sqrt(inner.clip(0)).sum()
    return float(np.square(mean_a - mean_b).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * cross)


def _moments(vectors: Vectors) -> tuple[np.ndarray, np.ndarray]:
    exact = vectors.astype(np.float64)
    return exact.mean(axis=0), np.atleast_2d(np.cov(exact, rowvar=False))


def precision_recall(real: Vectors, samples: Vectors, neighbours: int = NEIGHBOURS) -> PrecisionRecall:
    """A set's manifold is the union of balls around its vectors, each reaching its k-th nearest of the same set."""
    a, b = (torch.from_numpy(v.astype(np.float64)) for v in (real, samples))
    return PrecisionRecall(_covered(b, a, _radii(a, neighbours)), _covered(a, b, _radii(b, neighbours)))


def _radii(vectors: torch.Tensor, neighbours: int) -> torch.Tensor:
    """Distance of each vector to its k-th nearest other: [N]."""
    assert len(vectors) > neighbours
    chunks = [torch.cdist(c, vectors).kthvalue(neighbours + 1, dim=1).values for c in vectors.split(CHUNK)]
    return torch.cat(chunks)


def _covered(points: torch.Tensor, centres: torch.Tensor, radii: torch.Tensor) -> float:
    """Share of `points` in at least one ball."""
    inside = [(torch.cdist(c, centres) <= radii).any(dim=1) for c in points.split(CHUNK)]
    return float(torch.cat(inside).double().mean())
