"""A product with few maps, for GPUs, whose libraries pad them or fall back to slow kernels.

A small one is a sum a pixel and map, which Inductor fuses with both neighbours. In a large one that would compute what
goes before it once for every map: there each map has a sum of its own, which Inductor has in one kernel, and so have
the weight's gradients, beside the sums of the batch norm before it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from csrc_triton.maps import cast, widened
from csrc_triton.stored import stored

FEW = 4
"""Channels, or maps, up to which this pays."""
LARGE = 2**22
"""Elements of the map from which a sum for each output map pays; in a smaller one it is more launches."""


def pays(h: Tensor, few: int) -> bool:
    """Whether to use this for h, on its device, with so many channels or maps."""
    return h.device.type == "cuda" and few <= FEW


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, h: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(h, weight)
        if h.numel() < LARGE:
            y = (widened(h)[..., None, :] * widened(weight)).sum(dim=-1)
        else:
            y = torch.stack([(widened(h) * row).sum(dim=-1) for row in widened(weight)], dim=-1)
        return cast(y, h.dtype)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor]:
        h, weight = ctx.saved_tensors
        dy = stored(dy)
        dh = cast((widened(dy)[..., None] * widened(weight)).sum(dim=-2), h.dtype)
        if h.numel() < LARGE:
            return dh, dy.flatten(0, -2).t() @ h.flatten(0, -2)
        pixels = tuple(range(h.dim() - 1))
        dweight = torch.stack([(widened(h) * g[..., None]).sum(dim=pixels) for g in widened(dy).unbind(-1)])
        return dh, cast(dweight, weight.dtype)


def product(h: Tensor, weight: Tensor) -> Tensor:
    """F.linear(h, weight) for few maps: h [..., C], weight [maps, C]."""
    return _Product.apply(h, weight)
