"""A product with few maps, for GPUs, whose libraries pad them or fall back to slow kernels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

FEW = 4
"""Channels, or maps, up to which this pays."""


def pays(h: Tensor, few: int) -> bool:
    """Whether to use this for h, on its device, with so many channels or maps."""
    return h.device.type == "cuda" and few <= FEW


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, h: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(h, weight)
        return cast((_single(h)[..., None, :] * _single(weight)).sum(dim=-1), h.dtype)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor]:
        h, weight = ctx.saved_tensors
        dh = (_single(dy)[..., None] * _single(weight)).sum(dim=-2).to(h.dtype)
        return dh, dy.flatten(0, -2).t() @ h.flatten(0, -2)


def product(h: Tensor, weight: Tensor) -> Tensor:
    """F.linear(h, weight) for few maps: h [..., C], weight [maps, C]; a sum a pixel, which Inductor fuses with both
    neighbours."""
    return _Product.apply(h, weight)


def cast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """tensor.to(dtype), and nothing where that changes nothing.

    A Function whose forward ends in such a one is compiled by torch 2.11 with a gradient of zero.
    """
    return tensor if tensor.dtype == dtype else tensor.to(dtype)


def _single(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
