"""Batch norm, leaky ReLU and dropout in PyTorch's own operations: what csrc_triton.batch_norm's kernels are held to.

`reference` is torch's. A compiler does better by others with the same values: `image_by_image` in Inductor's C++,
`about_a_row` in its GPU code of large maps.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from csrc_triton import maps, philox

LARGE = 2**20
"""Elements of a map from which plain sums do less than Welford's updates in Inductor's GPU code; else more kernels."""


def reference(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float, slope: float, keep: Tensor | None, threshold: int
) -> tuple[Tensor, Tensor, Tensor]:
    """(y, mean, var); keep: uint8 or bool like x, or None for no dropout.

    torch's own batch norm: uncompiled on a CPU it is five times as fast as the formula written out. Its running
    statistics, all new, are the batch's.
    """
    single = maps.arithmetic_dtype(x.dtype)
    mean, var = (torch.zeros(x.shape[1], dtype=single, device=x.device) for _ in range(2))
    h = F.batch_norm(x.to(single), mean, var, weight.to(single), bias.to(single), True, 1.0, eps)
    M = x.numel() // x.shape[1]
    return _activate(h, slope, keep, threshold).to(x.dtype), mean, var * ((M - 1) / M)


def image_by_image(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float, slope: float, keep: Tensor | None, threshold: int
) -> tuple[Tensor, Tensor, Tensor]:
    """`reference` for Inductor's C++: each image's statistics merged, as the kernels merge those of ranges of rows.

    Half the time of what Inductor makes of torch's: Welford's updates, through memory again for every eight channels.
    """
    single = maps.arithmetic_dtype(x.dtype)
    dtype, x = x.dtype, x.to(single)
    rows = x.shape[2] * x.shape[3]
    means = x.sum((2, 3)) / rows
    squares = (x - means[:, :, None, None]).square().sum((2, 3))
    mean = means.mean(0)
    var = (squares.mean(0) + rows * (means - mean).square().mean(0)) / rows
    h = (x - _channels(mean)) * _channels(weight.to(single) * torch.rsqrt(var + eps)) + _channels(bias.to(single))
    return _activate(h, slope, keep, threshold).to(dtype), mean, var


class _AboutARow(torch.autograd.Function):
    """Batch norm by two sums about the first row, as the kernels take theirs: (h, mean, var) of a float32 map."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        M = x.numel() // x.shape[1]
        row = x[:1, :, :1, :1]
        d = x - row
        shift, square = d.sum((0, 2, 3)) / M, (d * d).sum((0, 2, 3)) / M
        mean, var = shift + row.flatten(), square - shift * shift
        invstd = torch.rsqrt(var + eps)
        ctx.save_for_backward(x, weight, mean, invstd)
        ctx.eps = eps
        ctx.mark_non_differentiable(mean, var)
        return (x - _channels(mean)) * _channels(invstd * weight) + _channels(bias), mean, var

    @staticmethod
    def backward(ctx: Any, dh: Tensor, *_: None) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight, mean, invstd = ctx.saved_tensors
        backward = torch.ops.aten.native_batch_norm_backward
        return *backward(dh, x, weight, None, None, mean, invstd, True, ctx.eps, [True, True, True]), None


def about_a_row(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float, slope: float, keep: Tensor | None, threshold: int
) -> tuple[Tensor, Tensor, Tensor]:
    """`reference` for Inductor's GPU code of large maps: of torch's own it makes Welford's updates, a division each."""
    single = maps.arithmetic_dtype(x.dtype)
    h, mean, var = _AboutARow.apply(x.to(single), weight.to(single), bias.to(single), eps)
    return _activate(h, slope, keep, threshold).to(x.dtype), mean, var


def _channels(v: Tensor) -> Tensor:
    """[C], to stand beside a map."""
    return v[None, :, None, None]


def _activate(h: Tensor, slope: float, keep: Tensor | None, threshold: int) -> Tensor:
    y = F.leaky_relu(h, slope) if slope != 1.0 else h
    return y if keep is None else philox.drop(y, keep, threshold)


def reference_backward(
    dy: Tensor,
    x: Tensor,
    mean: Tensor,
    var: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    slope: float,
    keep: Tensor | None,
    threshold: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """dx like x, and dweight, dbias [C] in the arithmetic's dtype."""
    single = mean.dtype
    invstd = torch.rsqrt(var + eps)
    slant = weight.to(single) * invstd
    d = x.to(single) - _channels(mean)
    g = dy.to(single)
    if keep is not None:
        g = philox.drop(g, keep, threshold)
    if slope != 1.0:
        h = d * _channels(slant) + _channels(bias.to(single))
        g = torch.where(h > 0, g, g * slope)
    M = x.numel() // x.shape[1]
    dbias, dweight = maps.channel_sums(g), maps.channel_sums(g * d) * invstd
    dx = (g - _channels(dbias / M) - d * _channels(invstd * dweight / M)) * _channels(slant)
    return dx.to(x.dtype), dweight, dbias
