"""The mixture's networks, R members of each in one set of tensors: one batched product a layer.

Points are [R, B, n]; within a network activations are [R, n, B], weights [R, out, in], and what belongs to a feature is
[R, n, 1]: statistics and a bias' gradient are then sums over neighbours in memory, which Inductor joins to what follows,
a kernel a batch norm where [R, B, n] took two. No member sees another. Widths are the paper's and its code's: E's and
G's hidden layers have no bias beside batch norm's shift; D's, and all last layers, have one.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FEW = 4
"""Up to so many dimensions of points or codes a product is written out, and becomes a part of what follows it."""
BATCH_NORM_EPS = 1e-4
BATCH_NORM_MOMENTUM = 0.05
Statistics = list[tuple[Tensor, Tensor]]
"""Pairs of a running average and the batch's value that it is to move towards, [R, n, 1]."""


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
    """The product weight h [R, out, B]; subclasses add bias, normalization and activation."""

    def __init__(self, members: int, n_in: int, n_out: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(members, n_out, n_in))

    def product(self, h: Tensor) -> Tensor:
        n_in = self.weight.shape[2]
        if n_in > FEW or h.requires_grad:  # a gradient to h is a sum over `out`, which is not written out
            return torch.bmm(self.weight, h)
        return functools.reduce(torch.add, [self.weight[:, :, i, None] * h[:, i, None, :] for i in range(n_in)])


class Normalized(Layer):
    """weight h, batch norm over the member's own batch, ReLU."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, members: int, n_in: int, n_out: int):
        super().__init__(members, n_in, n_out)
        self.scale = nn.Parameter(torch.ones(members, n_out, 1))
        self.shift = nn.Parameter(torch.zeros(members, n_out, 1))
        self.register_buffer("running_mean", torch.zeros(members, n_out, 1))
        self.register_buffer("running_var", torch.ones(members, n_out, 1))

    def forward(self, h: Tensor, statistics: Statistics) -> Tensor:
        h = self.product(h)
        if self.training:
            var, mean = torch.var_mean(h, dim=2, correction=0, keepdim=True)
            statistics += [(self.running_mean, mean.detach()), (self.running_var, var.detach())]
        else:
            mean, var = self.running_mean, self.running_var
        return F.relu((h - mean) * torch.rsqrt(var + BATCH_NORM_EPS) * self.scale + self.shift)


class Maxout(Layer):
    """weight h + bias, then the largest of each unit's pieces.

    The first pieces of all units come first, then the second ones: the maximum reads rows.
    """

    def __init__(self, members: int, n_in: int, units: int, pieces: int):
        super().__init__(members, n_in, pieces * units)
        self.bias = nn.Parameter(torch.zeros(members, pieces * units, 1))
        self.pieces = pieces

    def forward(self, h: Tensor, statistics: Statistics) -> Tensor:
        h = self.product(h) + self.bias
        return h.unflatten(1, (self.pieces, -1)).amax(dim=1)


class Linear(Layer):
    """weight h + bias."""

    def __init__(self, members: int, n_in: int, n_out: int):
        super().__init__(members, n_in, n_out)
        self.bias = nn.Parameter(torch.zeros(members, n_out, 1))

    def forward(self, h: Tensor, statistics: Statistics) -> Tensor:
        return self.product(h) + self.bias


class Network(nn.Module):
    """Layers in a row. In training each batch norm appends to `statistics` two pairs, [R, n, 1] each: its running mean
    and the batch's, its running variance and the batch's (biased); the step moves the averages. In evaluation it
    normalizes by those, and `statistics` is not needed. Takes and gives points, [R, B, n]."""

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
        h = h.mT
        for layer in self.layers:
            h = layer(h, moments)
        return h.mT


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
