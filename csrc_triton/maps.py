"""Channels-last maps [N, C, H, W], which kernels see as rows [M, C], and what their values are computed in."""

import torch
from torch import Tensor


def arithmetic_dtype(dtype: torch.dtype) -> torch.dtype:
    """What values of `dtype` are computed in: float32, and float64 in itself."""
    return torch.promote_types(dtype, torch.float32)


def widened(x: Tensor) -> Tensor:
    """x in the dtype that it is computed in."""
    return x.to(arithmetic_dtype(x.dtype))


def cast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """tensor.to(dtype), and nothing where that changes nothing.

    A Function whose forward ends in such a one is compiled by torch 2.11 with a gradient of zero.
    """
    return tensor if tensor.dtype == dtype else tensor.to(dtype)


def channels_last(x: Tensor) -> Tensor:
    """x in channels-last memory: itself, or a copy (a gradient may come expanded or NCHW)."""
    return x.contiguous(memory_format=torch.channels_last)


def fresh_map(y: Tensor, x: Tensor) -> Tensor:
    """A reference's result as an op's: in channels-last memory, and not its input x itself."""
    return channels_last(y.clone() if y is x else y)


def empty_map(x: Tensor, channels: int | None = None) -> Tensor:
    """An uninitialised channels-last map like x, with another number of channels if given.

    Its strides are given, not left to a memory format: of a 1x1 map Inductor (torch 2.13) would choose others, and then
    fail where it copies the kernel's result back to itself. A view, as two `empty_strided` of one size are one to a
    compiler, which then copies them, uninitialised, for the kernels that write them.
    """
    n, c, h, w = x.shape
    return torch.empty((n, h, w, channels or c), dtype=x.dtype, device=x.device).permute(0, 3, 1, 2)


def rows_and_channels(x: Tensor) -> tuple[int, int]:
    n, c, h, w = x.shape
    return n * h * w, c


def channel_sums(x: Tensor) -> Tensor:
    """[C], over the rest: a reference's.

    Image by image: one stays in a core's cache. Inductor's C++ for a sum over all rows at once goes through memory
    again for every eight channels.
    """
    return x.sum((2, 3)).sum(0)
