"""The mixture's networks, R members of each in one set of tensors: one batched product a layer.

Points are [R, B, n], weights [R, in, out], what belongs to a feature [R, 1, out]. No member sees another. Widths and
biases are those of the paper's code (experiments/ali_mixture.py): E's and G's hidden layers have no bias beside batch
norm's shift. D's have one, which its LinearMaxout has unless told otherwise, and it is not; so have all last layers.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BATCH_NORM_EPS = 1e-4
BATCH_NORM_MOMENTUM = 0.05
Statistics = list[tuple[Tensor, Tensor]]
"""Pairs of a running average and the batch's value that it is to move towards, [R, 1, n]."""


@dataclass(frozen=True)
class Sizes:
    """Dimensions of points x and codes z, and the widths of the layers."""

    x: int = 2
    z: int = 2
    hidden: int = 400
    """Hidden width of encoder and decoder."""
    units: int = 200
    """Maxout units per layer of the discriminator."""
    pieces: int = 5
    """Linear pieces per maxout unit."""


PAPER = Sizes()


class Layer(nn.Module):
    """h @ weight; subclasses add bias, normalization and activation."""

    def __init__(self, members: int, n_in: int, n_out: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(members, n_in, n_out))


class Normalized(Layer):
    """h @ weight, batch norm over the member's own batch, ReLU."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, members: int, n_in: int, n_out: int):
        super().__init__(members, n_in, n_out)
        self.scale = nn.Parameter(torch.ones(members, 1, n_out))
        self.shift = nn.Parameter(torch.zeros(members, 1, n_out))
        self.register_buffer("running_mean", torch.zeros(members, 1, n_out))
        self.register_buffer("running_var", torch.ones(members, 1, n_out))

    def forward(self, h: Tensor, statistics: Statistics) -> Tensor:
        h = torch.bmm(h, self.weight)
        if self.training:
            var, mean = torch.var_mean(h, dim=1, correction=0, keepdim=True)
            statistics += [(self.running_mean, mean.detach()), (self.running_var, var.detach())]
        else:
            mean, var = self.running_mean, self.running_var
        return F.relu((h - mean) * torch.rsqrt(var + BATCH_NORM_EPS) * self.scale + self.shift)


class Maxout(Layer):
    """h @ weight + bias, then the largest of each unit's pieces.

    The first pieces of all units come first, then the second ones: the maximum reads rows.
    """

    def __init__(self, members: int, n_in: int, units: int, pieces: int):
        super().__init__(members, n_in, pieces * units)
        self.bias = nn.Parameter(torch.zeros(members, 1, pieces * units))
        self.pieces = pieces

    def forward(self, h: Tensor, statistics: Statistics) -> Tensor:
        h = torch.bmm(h, self.weight) + self.bias
        return h.unflatten(2, (self.pieces, -1)).amax(dim=2)


class Linear(Layer):
    """h @ weight + bias."""

    def __init__(self, members: int, n_in: int, n_out: int):
        super().__init__(members, n_in, n_out)
        self.bias = nn.Parameter(torch.zeros(members, 1, n_out))

    def forward(self, h: Tensor, statistics: Statistics) -> Tensor:
        return torch.bmm(h, self.weight) + self.bias


class Network(nn.Module):
    """Layers in a row. In training each batch norm appends to `statistics` two pairs, [R, 1, n] each: its running mean
    and the batch's, its running variance and the batch's (biased); the step moves the averages. In evaluation it
    normalizes by those, and `statistics` is not needed."""

    def __init__(self, *layers: Layer):
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.frozen = False

    def freeze(self) -> None:
        """From now on nothing in it changes: no gradients, and it stays in evaluation mode, whatever `train` says."""
        self.requires_grad_(False)
        self.frozen = True
        self.eval()

    def train(self, mode: bool = True) -> Network:
        super().train(mode and not self.frozen)
        return self

    def forward(self, h: Tensor, statistics: Statistics | None = None) -> Tensor:
        moments = [] if statistics is None else statistics
        for layer in self.layers:
            h = layer(h, moments)
        return h


def _rectified(members: int, n_in: int, hidden: int, depth: int, n_out: int) -> Network:
    widths = [n_in] + [hidden] * depth
    layers = [Normalized(members, a, b) for a, b in itertools.pairwise(widths)]
    return Network(*layers, Linear(members, hidden, n_out))


def encoder(members: int, sizes: Sizes) -> Network:
    """[x, eps] -> z_hat: a change of variable, no Gaussian head."""
    return _rectified(members, 2 * sizes.x, sizes.hidden, 2, sizes.z)


def gaussian_encoder(members: int, sizes: Sizes) -> Network:
    """x -> [mu, log_sigma]: ALI's encoder with the head that a VAE's bound needs."""
    return _rectified(members, sizes.x, sizes.hidden, 2, 2 * sizes.z)


def decoder(members: int, sizes: Sizes) -> Network:
    """z -> x_tilde."""
    return _rectified(members, sizes.z, sizes.hidden, 4, sizes.x)


def discriminator(members: int, n_in: int, sizes: Sizes) -> Network:
    """[x, z], or x alone, -> logit."""
    widths = [n_in] + [sizes.units] * 3
    layers = [Maxout(members, a, b, sizes.pieces) for a, b in itertools.pairwise(widths)]
    return Network(*layers, Linear(members, sizes.units, 1))
