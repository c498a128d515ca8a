"""A row of a table as a module, and a table as a stack of them.

In training a stack takes `seeds` (int64 [sites], on the device: the random sites read theirs by slot) and appends
each batch norm's (mean, biased variance) to `statistics`; the running averages are the step's to update. In
evaluation it uses the running averages and drops nothing.

Dropout belongs to a row's input. Where a layer precedes the row, its activation applies it in the same kernel.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ali_fast import few_channels, im2col
from ali_fast.arch import Layout, Table, layout
from ali_fast.kernels import Kernels
from csrc_triton.batch_norm import batch_norm
from csrc_triton.bias_act import bias_act
from csrc_triton.maps import widened
from csrc_triton.maxout import maxout

BATCH_NORM_EPS = 1e-4
BATCH_NORM_MOMENTUM = 0.05
Statistics = list[tuple[Tensor, Tensor]]
"""(mean, biased variance) of a batch, each [C], norm by norm."""


def in_halves(place: Layout) -> bool:
    """Whether a row's maps may be computed in halves: the first of every pair that maxout compares, then the second."""
    return place.row.activation == "maxout" and place.out_size > 1


def takes_halves(device: torch.device) -> bool:
    """Whether maps are computed in halves: where Inductor writes C++, which reads every other channel one by one."""
    return device.type == "cpu" and torch.compiler.is_compiling()


def halves(parameter: Tensor) -> Tensor:
    """Of a weight [2C, ...] or a bias [2C]: rows 0, 2, 4, ..., then 1, 3, 5, ..."""
    return torch.cat([parameter[::2], parameter[1::2]])


class Convolution(nn.Module):
    """A valid convolution, as a matrix product where it is one; with a bias only before a linear output."""

    def __init__(self, place: Layout):
        super().__init__()
        row = place.row
        self.stride, self.halves = row.stride, in_halves(place)
        shape = (row.maps, place.in_channels) if row.operation == "conv" else (place.in_channels, row.maps)
        weight = torch.empty(*shape, row.kernel, row.kernel)
        self.weight = nn.Parameter(weight.to(memory_format=torch.channels_last))
        linear = row.activation == "linear" and row.bias == "tied"
        self.bias = nn.Parameter(torch.zeros(row.maps)) if linear else None
        # Functions, not bound methods: those would be a cycle, and a model that is let go would stay till it is found.
        if row.operation == "transposed":
            one_pixel = place.in_size == 1 and not linear
            self.product = Convolution.from_one_pixel if one_pixel else Convolution.transposed
        elif row.kernel == row.stride == 1:
            self.product = Convolution.pointwise
        else:
            covered = place.in_size == row.kernel
            self.product = Convolution.full_extent if covered else Convolution.convolution

    def forward(self, h: Tensor, seeds: Tensor | None = None, e: Tensor | None = None) -> Tensor:
        """h [N, C, H, W] -> [N, maps, H', W']."""
        return self.product(self, h, self.factor(h))

    def factor(self, h: Tensor) -> Tensor:
        """What h is multiplied by: the weight, its maps in the order in which they are computed, or its matrix."""
        weight = halves(self.weight) if self.halves and takes_halves(h.device) else self.weight
        _, channels, k, _ = weight.shape
        patches = self.product is Convolution.convolution and self.bias is None
        patches = patches and im2col.pays(h.device, channels, k, self.stride, h.shape[2])
        return im2col.matrix(weight) if patches else weight

    def gradient(self, dy: Tensor, h: Tensor, factor: Tensor) -> Tensor:
        """At h, some images of a pass with this factor, from dy at what it makes of them."""
        if self.product is Convolution.convolution and factor.dim() == 4:
            geometry = ([self.stride] * 2, [0, 0], [1, 1], False, [0, 0], 1)
            backward = torch.ops.aten.convolution_backward
            return backward(dy, h.detach(), factor.detach(), None, *geometry, [True, False, False])[0]
        # Compiled, nobody reads the product and it is left out; eager, it is computed again, of these few images.
        return torch.autograd.grad([self.product(self, h, factor)], [h], [dy])[0]

    def pointwise(self, h: Tensor, weight: Tensor) -> Tensor:
        if h.device.type == "cpu" and h.shape[2] > 1:
            # oneDNN's 1x1 convolutions take two thirds of the time of BLAS's products of such thin matrices, and keep
            # Inductor from fusing an untied bias's sum into a loop that wakes all threads again for every pixel.
            return self.convolution(h, weight)
        weight = weight.flatten(1)
        rows = h.permute(0, 2, 3, 1)
        if few_channels.pays(h, len(weight)) and self.bias is None:
            return few_channels.product(rows, weight).permute(0, 3, 1, 2)
        return F.linear(rows, weight, self.bias).permute(0, 3, 1, 2)

    def full_extent(self, h: Tensor, weight: Tensor) -> Tensor:
        """The kernel covers the map: [N, k k C] x [k k C, maps], both views in channels-last memory."""
        weight = weight.permute(0, 2, 3, 1).flatten(1)
        return F.linear(h.permute(0, 2, 3, 1).flatten(1), weight, self.bias)[:, :, None, None]

    def from_one_pixel(self, h: Tensor, weight: Tensor) -> Tensor:
        """A transposed convolution of a 1x1 map: [N, C] x [C, k k maps]."""
        _, maps, k, _ = weight.shape
        y = h.flatten(1) @ weight.permute(0, 2, 3, 1).flatten(1)
        return y.unflatten(1, (k, k, maps)).permute(0, 3, 1, 2)

    def convolution(self, h: Tensor, weight: Tensor) -> Tensor:
        if weight.dim() == 2:
            return im2col.convolution(h, weight, self.weight.shape[2], self.stride)
        return F.conv2d(h, weight, self.bias, self.stride)

    def transposed(self, h: Tensor, weight: Tensor) -> Tensor:
        _, maps, k, _ = weight.shape
        if self.bias is None and im2col.pays(h.device, maps, k, self.stride, (h.shape[2] - 1) * self.stride + k):
            return im2col.transposed(h, weight, self.stride)
        return F.conv_transpose2d(h, weight, self.bias, self.stride)


class Link(NamedTuple):
    """y, of h by a product in a pass, image by image, as all before it."""

    product: Convolution
    factor: Tensor
    h: Tensor
    y: Tensor

    @classmethod
    def of(cls, product: nn.Module, h: Tensor) -> Link:
        assert isinstance(product, Convolution)
        factor = product.factor(h)
        return cls(product, factor, h, product.product(product, h, factor))

    def gradient(self, dy: Tensor) -> Tensor:
        """At the last of h, from dy at theirs of y."""
        return self.product.gradient(dy, self.h[-len(dy) :], self.factor)


class Conditioned(Convolution):
    """Of a row whose input h [N, C, 1, 1] is joined by the embedded condition e [N, 256, 1, 1].

    The row's input dropout is applied to e here, to h by the layer before as ever.
    """

    def __init__(self, place: Layout, slot: int, kernels: Kernels):
        super().__init__(place)
        self.dropout, self.slot, self.kernels = place.row.input_dropout, slot, kernels

    def forward(self, h: Tensor, seeds: Tensor | None = None, e: Tensor | None = None) -> Tensor:
        assert e is not None, "a conditional network takes a condition"
        if self.training and self.dropout:
            e = bias_act(e, dropout=self.dropout, seeds=seeds, slot=self.slot, backend=self.kernels.bias_act)
        return super().forward(torch.cat([h, e], dim=1))


class Activation(nn.Module):
    """What follows the product: normalization or bias, nonlinearity, and the next row's input dropout."""

    def __init__(self, place: Layout, slope: float, dropout: float, slot: int, kernels: Kernels):
        super().__init__()
        self.maps, self.slope, self.dropout, self.slot = place.row.maps, slope, dropout, slot
        self.kernels = kernels


class Normalized(Activation):
    """Batch norm, leaky ReLU."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, place: Layout, slope: float, dropout: float, slot: int, kernels: Kernels):
        super().__init__(place, slope, dropout, slot, kernels)
        self.weight = nn.Parameter(torch.ones(self.maps))
        self.bias = nn.Parameter(torch.zeros(self.maps))
        self.register_buffer("running_mean", torch.zeros(self.maps))
        self.register_buffer("running_var", torch.ones(self.maps))

    def normalize(self, h: Tensor) -> Tensor:
        """By the running statistics, before the nonlinearity: in float32 at least, as in training."""
        statistics = self.running_mean, self.running_var
        y = F.batch_norm(widened(h), *statistics, self.weight, self.bias, False, 0.0, BATCH_NORM_EPS)
        return y.to(h.dtype)

    def forward(self, h: Tensor, seeds: Tensor | None, statistics: Statistics | None) -> Tensor:
        if not self.training:
            return F.leaky_relu(self.normalize(h), self.slope)
        assert statistics is not None
        y, mean, var = batch_norm(
            h,
            self.weight,
            self.bias,
            BATCH_NORM_EPS,
            self.slope,
            dropout=self.dropout,
            seeds=seeds,
            slot=self.slot,
            backend=self.kernels.batch_norm,
        )
        statistics.append((mean, var))
        return y


class Biased(Activation):
    """Bias (if the row has one), leaky ReLU."""

    def __init__(self, place: Layout, slope: float, dropout: float, slot: int, kernels: Kernels):
        super().__init__(place, slope, dropout, slot, kernels)
        self.bias = nn.Parameter(torch.zeros(self.maps)) if place.row.bias == "tied" else None

    def forward(self, h: Tensor, seeds: Tensor | None, statistics: Statistics | None) -> Tensor:
        dropout = self.dropout if self.training else 0.0
        return bias_act(
            h,
            self.bias,
            self.slope,
            dropout=dropout,
            seeds=seeds,
            slot=self.slot,
            backend=self.kernels.bias_act,
        )


class Maxout(Activation):
    """Bias (if the row has one), the larger of each two adjacent channels."""

    def __init__(self, place: Layout, slope: float, dropout: float, slot: int, kernels: Kernels):
        before = place.row.dropout_site == "before_maxout"
        assert not (before and dropout), "one dropout a layer"
        super().__init__(place, slope, place.row.dropout if before else dropout, slot, kernels)
        self.order, self.halves = "before" if before else "after", in_halves(place)
        self.bias = nn.Parameter(torch.zeros(self.maps)) if place.row.bias == "tied" else None

    def forward(self, h: Tensor, seeds: Tensor | None, statistics: Statistics | None) -> Tensor:
        dropout = self.dropout if self.training else 0.0
        as_halves = self.halves and takes_halves(h.device)
        return maxout(
            h,
            halves(self.bias) if as_halves and self.bias is not None else self.bias,
            dropout=dropout,
            order=self.order,
            halves=as_halves,
            seeds=seeds,
            slot=self.slot,
            backend=self.kernels.maxout,
        )


class Pixels(Activation):
    """Untied bias, sigmoid: the decoder's output."""

    def __init__(self, place: Layout, slope: float, dropout: float, slot: int, kernels: Kernels):
        super().__init__(place, slope, dropout, slot, kernels)
        bias = torch.zeros(1, self.maps, place.out_size, place.out_size)
        self.bias = nn.Parameter(bias.to(memory_format=torch.channels_last))

    def forward(self, h: Tensor, seeds: Tensor | None, statistics: Statistics | None) -> Tensor:
        return torch.sigmoid(h + self.bias).to(h.dtype)


class Linear(Activation):
    """Nothing: the convolution has added the bias."""

    def forward(self, h: Tensor, seeds: Tensor | None, statistics: Statistics | None) -> Tensor:
        return h


def _activation(place: Layout) -> type[Activation]:
    if place.row.norm:
        return Normalized
    return {"leaky_relu": Biased, "maxout": Maxout, "sigmoid": Pixels, "linear": Linear}[place.row.activation]


class Stack(nn.Module):
    """A table of rows. `dropout_after` is the input dropout of whatever takes the stack's output."""

    def __init__(
        self,
        table: Table,
        channels: int,
        size: int,
        slope: float,
        kernels: Kernels,
        slots: Iterator[int],
        dropout_after: float = 0.0,
    ):
        super().__init__()
        places = layout(table, channels, size)
        following = [row.input_dropout for row in table[1:]] + [dropout_after]
        self.products = nn.ModuleList(
            Conditioned(place, next(slots), kernels) if place.row.condition else Convolution(place) for place in places
        )
        self.activations = nn.ModuleList(
            _activation(place)(place, slope, dropout, next(slots), kernels)
            for place, dropout in zip(places, following, strict=True)
        )

    def forward(
        self,
        h: Tensor,
        seeds: Tensor | None = None,
        statistics: Statistics | None = None,
        e: Tensor | None = None,
        links: list[Link] | None = None,
    ) -> Tensor:
        """h [N, C, H, W] -> [N, c, H', W'].

        e: the embedded condition [N, 256, 1, 1], where a row takes one. links: is given the products up to the first
        batch norm, which mixes images.
        """
        for product, activation in zip(self.products, self.activations, strict=True):
            if links is not None:
                links.append(Link.of(product, h))
                h = links[-1].y
                links = None if isinstance(activation, Normalized) else links
            else:
                h = product(h, seeds, e)
            h = activation(h, seeds, statistics)
        return h


def batch_norms(*networks: nn.Module) -> list[Normalized]:
    """In the order in which a training pass appends their statistics."""
    return [module for network in networks for module in network.modules() if isinstance(module, Normalized)]


@torch.no_grad()
def move_running(norms: list[Normalized], statistics: Statistics, momentum: float = BATCH_NORM_MOMENTUM) -> None:
    """Move the running averages of `norms` by the share `momentum` to a batch's."""
    running = [average for norm in norms for average in (norm.running_mean, norm.running_var)]
    batch = [new for pair in statistics for new in pair]
    batch = [new.to(old.dtype) for new, old in zip(batch, running, strict=True)]
    torch._foreach_lerp_(running, batch, momentum)
