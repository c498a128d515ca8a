"""Products with the few channels of an image, for GPUs, whose libraries pad 3 channels or fall back to slow kernels.

On an H100 cifar10's two convolutions of images, forward and backward, took a sixth of the step by cuDNN. Here they are
a matrix product of patches, [N Ho Wo, k k C], each of their rows padded to what the tensor cores load at once; Inductor
fuses the gathering with what made the image.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

FEW = 4
"""Channels, or maps, up to which this pays."""
ALIGNMENT = 8
"""Columns of a bf16 matrix that the tensor cores load at once."""


def pays(h: Tensor, few: int) -> bool:
    """Whether to use this for h, on its device, with so many channels or maps."""
    return h.device.type == "cuda" and few <= FEW


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, h: Tensor, weight: Tensor, stride: int) -> Tensor:
        patches, matrix = _patches(h, weight.shape[2], stride), _matrix(weight)
        n, rows, columns = patches.shape[:3]
        ctx.save_for_backward(patches, weight)
        ctx.stride, ctx.shape = stride, h.shape
        return (patches.flatten(0, 2) @ matrix.t()).unflatten(0, (n, rows, columns)).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, Tensor, None]:
        patches, weight = ctx.saved_tensors
        _, channels, k, _ = weight.shape
        rows = dy.permute(0, 2, 3, 1).flatten(0, 2)
        d_matrix = (rows.t() @ patches.flatten(0, 2)).unflatten(1, (k, -1))[..., : k * channels]
        d_weight = d_matrix.unflatten(2, (k, channels)).permute(0, 3, 1, 2)
        if not ctx.needs_input_grad[0]:
            return None, d_weight, None
        d_patches = (rows @ _matrix(weight)).unflatten(0, patches.shape[:3])
        return _images(d_patches, ctx.shape, k, ctx.stride), d_weight, None


def convolution(h: Tensor, weight: Tensor, stride: int) -> Tensor:
    """F.conv2d(h, weight, stride=stride) for h [N, C, H, W] and a square weight [maps, C, k, k]; channels last."""
    return _Convolution.apply(h, weight, stride)


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, h: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(h, weight)
        return (_single(h)[..., None, :] * _single(weight)).sum(dim=-1).to(h.dtype)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor]:
        h, weight = ctx.saved_tensors
        dh = (_single(dy)[..., None] * _single(weight)).sum(dim=-2).to(h.dtype)
        return dh, dy.flatten(0, -2).t() @ h.flatten(0, -2)


def product(h: Tensor, weight: Tensor) -> Tensor:
    """F.linear(h, weight) for few maps: h [..., C], weight [maps, C]; a sum a pixel, which Inductor fuses with both
    neighbours."""
    return _Product.apply(h, weight)


def _single(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _pad(matrix: Tensor) -> Tensor:
    return F.pad(matrix, (0, -matrix.shape[-1] % ALIGNMENT))


def _matrix(weight: Tensor) -> Tensor:
    """[maps, k * padded k C]."""
    return _pad(weight.permute(0, 2, 3, 1).flatten(2)).flatten(1)


def _patches(h: Tensor, k: int, stride: int) -> Tensor:
    """[N, Ho, Wo, k * padded k C]: each row of a patch is contiguous in h's memory."""
    windows = h.permute(0, 2, 3, 1).unfold(1, k, stride).unfold(2, k, stride)
    return _pad(windows.permute(0, 1, 2, 4, 5, 3).flatten(4)).flatten(3)


def _images(d_patches: Tensor, shape: torch.Size, k: int, stride: int) -> Tensor:
    """The adjoint of `_patches`: every pixel adds up what its patches have of it, in one order, without atomics."""
    _, channels, height, width = shape
    total, of_rows = None, d_patches.unflatten(3, (k, -1))
    for a in range(k):
        for b in range(k):
            part = _single(of_rows[..., a, b * channels : (b + 1) * channels]).permute(0, 3, 1, 2)
            if stride > 1:
                part = _spread(part, stride)
            left, top = b, a
            right, bottom = width - left - part.shape[3], height - top - part.shape[2]
            part = F.pad(part, (left, right, top, bottom))
            total = part if total is None else total + part
    assert total is not None
    return total.to(d_patches.dtype)


def _spread(part: Tensor, stride: int) -> Tensor:
    """Zeros between rows and columns: size (n - 1) stride + 1."""
    n, c, h, w = part.shape
    spread = F.pad(part[:, :, :, None, :, None], (0, stride - 1, 0, 0, 0, stride - 1))
    return spread.reshape(n, c, h * stride, w * stride)[:, :, : (h - 1) * stride + 1, : (w - 1) * stride + 1]
