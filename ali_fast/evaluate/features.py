"""Representations of images for a linear classifier: the encoder's, and what it has to beat."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from sklearn.decomposition import PCA
from torch import Tensor

from ali_fast.evaluate.svm import Features
from ali_fast.layers import Normalized, Stack, Statistics, batch_norms, move_running
from ali_fast.model import ALI
from ali_fast.pixels import to_x

CHUNK = 256  # images at a time
LAYERS = 3  # hidden ones, counted from the codes
STATISTICS_IMAGES = 1000  # that an untrained net's batch norms see
PCA_VARIANCE = 0.99

Represent = Callable[[npt.NDArray[np.uint8]], Features]


def hidden_and_mu(encoder: Stack, x: Tensor, z_dim: int) -> Tensor:
    """The paper's features of x [N, C, H, W]: the last three hidden layers and mu, flattened: [N, D].

    Hidden layers are taken after batch norm and before the nonlinearity, as in the authors' code.
    """
    h, kept = x, []
    for product, activation in zip(encoder.products, encoder.activations, strict=True):
        h = product(h)
        if isinstance(activation, Normalized):
            kept.append(activation.normalize(h))
        h = activation(h, None, None)
    return torch.cat([layer.flatten(1) for layer in [*kept[-LAYERS:], h[:, :z_dim]]], dim=1)


def encoder_features(model: ALI) -> Represent:
    """`hidden_and_mu` of a model in evaluation mode."""
    assert not model.training
    device, a = next(model.parameters()).device, model.architecture

    def chunk_features(chunk: Tensor) -> Features:
        features: Features = (
            hidden_and_mu(model.encoder, to_x(chunk.to(device), a.image_size), a.z_dim).float().cpu().numpy()
        )
        return features

    @torch.no_grad()
    def represent(images: npt.NDArray[np.uint8]) -> Features:
        chunks = torch.from_numpy(images).split(CHUNK)
        first = chunk_features(chunks[0])
        features = np.empty((len(images), first.shape[1]), np.float32)
        features[: len(first)] = first
        for i, chunk in enumerate(chunks[1:], 1):
            features[i * CHUNK : i * CHUNK + len(chunk)] = chunk_features(chunk)
        return features

    return represent


@torch.no_grad()
def untrained(like: ALI, images: npt.NDArray[np.uint8], seed: int) -> ALI:
    """The same networks with fresh weights, ready for inference.

    The encoder's batch norms take their statistics from `images`, as the first steps of a training would.
    """
    device = next(like.parameters()).device
    model = like.untrained()
    model.initialize(torch.Generator().manual_seed(seed))
    model.to(device).train()
    statistics: Statistics = []
    x = to_x(torch.from_numpy(images[:STATISTICS_IMAGES]).to(device), like.architecture.image_size)
    model.encoder(x, torch.zeros(model.sites, dtype=torch.int64, device=device), statistics)
    move_running(batch_norms(model.encoder), statistics, 1.0)
    return model.eval()


def pixels(images: npt.NDArray[np.uint8]) -> Features:
    """Raw pixels in [0, 1]."""
    return np.divide(images.reshape(len(images), -1), 255, dtype=np.float32)


def principal_components(images: npt.NDArray[np.uint8]) -> Represent:
    """The principal components of `images` that hold 99 % of their variance, not whitened."""
    pca = PCA(PCA_VARIANCE, svd_solver="covariance_eigh").fit(pixels(images))

    def represent(others: npt.NDArray[np.uint8]) -> Features:
        components: Features = np.asarray(pca.transform(pixels(others)), np.float32)
        return components

    return represent
