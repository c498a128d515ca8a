"""Convolutions as matrix products of patches (im2col), [N Ho Wo, k k C], where that beats the libraries' own.

On a GPU: of the few channels of an image, which libraries pad, or fall back to slow kernels for. On an H100 cifar10's
two convolutions of images, forward and backward, took a sixth of the step by cuDNN. Each row of a patch is padded to
what the tensor cores load at once, and Inductor fuses the gathering with what made the image. On a CPU: where patches
are little larger than a map of many channels, in the compiled step: oneDNN's gradients of such convolutions run at two
thirds of a matrix product's rate.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ali_fast.few_channels import FEW
from csrc_triton.maps import cast, widened

ALIGNMENT = 8
"""Columns of a bf16 matrix that the tensor cores load at once."""
MANY = 64
"""Channels from which this pays on a CPU."""
LITTLE_LARGER = 3.0
"""Patches' elements to the map's, up to which they pay on a CPU: 4x4 kernels at stride 2 on 10x10 pixels have 2.6."""


def pays(device: torch.device, channels: int, kernel: int, stride: int, size: int) -> bool:
    """Whether to use this for maps [N, channels, size, size], the larger side of a convolution or a transposed one."""
    if device.type == "cuda":
        return channels <= FEW
    places = (size - kernel) // stride + 1
    little = stride > 1 and (kernel * places) ** 2 <= LITTLE_LARGER * size**2
    return channels >= MANY and little and torch.compiler.is_compiling()


def convolution(h: Tensor, matrix: Tensor, k: int, stride: int) -> Tensor:
    """F.conv2d(h, weight, stride=stride) for h [N, C, H, W] by the `matrix` of weight [maps, C, k, k]."""
    return F.linear(_Im2col.apply(h, k, stride), matrix).permute(0, 3, 1, 2)


def transposed(h: Tensor, weight: Tensor, stride: int) -> Tensor:
    """F.conv_transpose2d(h, weight, stride=stride) for h [N, C, H, W], weight [C, maps, k, k]; channels last."""
    patches = h.permute(0, 2, 3, 1) @ matrix(weight)
    k, height, width = weight.shape[2], *h.shape[2:]
    shape = (len(h), weight.shape[1], (height - 1) * stride + k, (width - 1) * stride + k)
    return _Col2im.apply(patches, shape, k, stride)


class _Im2col(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, h: Tensor, k: int, stride: int) -> Tensor:
        ctx.shape, ctx.k, ctx.stride = h.shape, k, stride
        return _im2col(h, k, stride)

    @staticmethod
    def backward(ctx: Any, d_patches: Tensor) -> tuple[Tensor, None, None]:
        return _col2im(d_patches, ctx.shape, ctx.k, ctx.stride), None, None


class _Col2im(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, patches: Tensor, shape: tuple[int, int, int, int], k: int, stride: int) -> Tensor:
        ctx.k, ctx.stride = k, stride
        return _col2im(patches, shape, k, stride)

    @staticmethod
    def backward(ctx: Any, d_images: Tensor) -> tuple[Tensor, None, None, None]:
        return _im2col(d_images, ctx.k, ctx.stride), None, None, None


def _pad(matrix: Tensor) -> Tensor:
    """Not by F.pad, whose gradient is a copy: this one's is a view."""
    gap = -matrix.shape[-1] % ALIGNMENT
    return torch.cat([matrix, matrix.new_zeros(*matrix.shape[:-1], gap)], dim=-1) if gap else matrix


def matrix(weight: Tensor) -> Tensor:
    """Of a weight [A, B, k, k]: [A, k * padded k B]."""
    return _pad(weight.permute(0, 2, 3, 1).flatten(2)).flatten(1)


def _im2col(h: Tensor, k: int, stride: int) -> Tensor:
    """[N, Ho, Wo, k * padded k C]: each row of a patch is contiguous in h's memory."""
    windows = h.permute(0, 2, 3, 1).unfold(1, k, stride).unfold(2, k, stride)
    return _pad(windows.permute(0, 1, 2, 4, 5, 3).flatten(4)).flatten(3)


def _col2im(patches: Tensor, shape: tuple[int, ...], k: int, stride: int) -> Tensor:
    """The adjoint of `_im2col`: every pixel adds up what its patches have of it, in one order, without atomics.

    Row i of patch p is the image's row p stride + i = (p + i // stride) stride + i % stride. So a patch is some blocks
    of stride x stride pixels, and the image the sum of as many maps of blocks, each shifted by whole blocks.
    """
    _, channels, height, width = shape
    blocks = -(-k // stride)
    gap = blocks * stride - k
    pixels = widened(patches).unflatten(3, (k, -1))
    pixels = pixels[..., : k * channels].unflatten(4, (k, channels))
    if gap:
        pixels = F.pad(pixels, (0, 0, 0, gap, 0, gap))
    pixels = pixels.unflatten(4, (blocks, stride)).unflatten(3, (blocks, stride))  # [N, Ho, Wo, a, i, b, j, C]
    total = None
    for a in range(blocks):
        for b in range(blocks):
            part = pixels[:, :, :, a, :, b].transpose(2, 3)  # [N, Ho, i, Wo, j, C]
            part = F.pad(part, (0, 0, 0, 0, b, blocks - 1 - b, 0, 0, a, blocks - 1 - a))
            total = part if total is None else total + part
    assert total is not None
    image = total.flatten(3, 4).flatten(1, 2)[:, :height, :width]
    image = F.pad(image, (0, 0, 0, width - image.shape[2], 0, height - image.shape[1]))
    return cast(image.permute(0, 3, 1, 2), patches.dtype)
