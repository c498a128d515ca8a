"""Maxout, bias and dropout in PyTorch's own operations: what csrc_triton.maxout's kernels are held to.

`reference` is differentiated by autograd; `coded` has its values and a gradient that reads less, for Inductor's GPU
code; `reference_code` and `reference_backward` are what the kernels keep and make of it.
"""

from typing import Any

import torch
from torch import Tensor

from csrc_triton import maps, philox
from csrc_triton.stored import stored


def _split(h: Tensor, halves: bool) -> tuple[Tensor, Tensor]:
    """The two channels [N, H, W, C] of each pair.

    Channels come last, where h has them in memory: Inductor's CPU code then writes dx in x's layout.
    """
    h = h.permute(0, 2, 3, 1)
    first, second = h.unflatten(-1, (2, -1)).unbind(-2) if halves else h.unflatten(-1, (-1, 2)).unbind(-1)
    return first, second


def _pieces(
    x: Tensor, bias: Tensor | None, keep: Tensor | None, threshold: int, before: bool, halves: bool
) -> tuple[Tensor, Tensor]:
    """The two channels [N, H, W, C] that compete."""
    h = maps.widened(x)
    if bias is not None:
        h = h + (bias[:, None, None] if bias.dim() == 1 else bias).to(h.dtype)
    first, second = _split(h, halves)
    if before and keep is not None:
        keep_first, keep_second = _split(keep, halves=False)
        first, second = philox.drop(first, keep_first, threshold), philox.drop(second, keep_second, threshold)
    return first, second


# Below is what Inductor's C++ has vectors for: v != v, not isnan; sums of floats, not of bytes or truth values.


def reference(
    x: Tensor, bias: Tensor | None, keep: Tensor | None, threshold: int, before: bool, halves: bool = False
) -> Tensor:
    """keep: uint8 or bool like x (before) or like y, or None for no dropout."""
    first, second = _pieces(x, bias, keep, threshold, before, halves)
    y = torch.where(second != second, second, torch.where(second > first, second, first)).permute(0, 3, 1, 2)
    if not before and keep is not None:
        y = philox.drop(y, keep, threshold)
    return maps.cast(y, x.dtype)


def reference_code(
    x: Tensor, bias: Tensor | None, keep: Tensor | None, threshold: int, before: bool, halves: bool = False
) -> Tensor:
    """uint8 like y."""
    first, second = _pieces(x, bias, keep, threshold, before, halves)
    wins = (second > first) | (second != second)
    code = torch.where(wins, 1.0, 0.0)
    if keep is None:
        kept: Tensor | float = 1.0
    elif before:
        keep_first, keep_second = _split(keep, halves=False)
        kept = torch.where(wins, keep_second.to(torch.float32), keep_first.to(torch.float32))
    else:
        kept = keep.permute(0, 2, 3, 1).to(torch.float32)
    return (code + 2.0 * kept).to(torch.uint8).permute(0, 3, 1, 2)


def reference_backward(dy: Tensor, code: Tensor, threshold: int, halves: bool = False) -> tuple[Tensor, Tensor]:
    """dx [N, 2C, H, W], and its sum [2C] over the rest in the arithmetic's dtype."""
    g = maps.widened(dy) * philox.kept_scale(threshold)
    g, winner = g.permute(0, 2, 3, 1), code.permute(0, 2, 3, 1).to(torch.int32)
    pieces = torch.where(winner == 2, g, 0.0), torch.where(winner == 3, g, 0.0)
    dx = torch.cat(pieces, dim=-1) if halves else torch.stack(pieces, dim=-1).flatten(-2)
    dx = dx.permute(0, 3, 1, 2)
    return dx.to(dy.dtype), maps.channel_sums(dx)


class _Coded(torch.autograd.Function):
    """Its backward reads dy and one byte an output, as the kernels' does.

    Autograd's own, in Inductor's GPU code, compares x + bias again, both channels for each of the two, and adds the
    bias up either by doing that once more or from a dx that it writes in float32 as well.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor | None, keep: Tensor | None, threshold: int, before: bool) -> Tensor:
        ctx.save_for_backward(stored(reference_code(x, bias, keep, threshold, before)))
        ctx.threshold, ctx.bias = threshold, None if bias is None else (bias.dtype, bias.dim())
        return reference(x, bias, keep, threshold, before)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        (code,) = ctx.saved_tensors
        # As `reference_backward`, but as one expression of each element of dx, which fuses with what goes before.
        g = maps.widened(dy) * philox.kept_scale(ctx.threshold)
        g, code = (t.permute(0, 2, 3, 1)[..., None].expand(-1, -1, -1, -1, 2).flatten(-2) for t in (g, code))
        kept = 2 + torch.arange(code.shape[-1], device=code.device) % 2  # the code of a first channel's win, a second's
        wide = torch.where(code == kept, g, 0.0).permute(0, 3, 1, 2)
        db = None
        if ctx.bias is not None:
            dtype, dims = ctx.bias
            db = wide.sum((0, 2, 3) if dims == 1 else 0).to(dtype)
        return wide.to(dy.dtype), db, None, None, None


def coded(x: Tensor, bias: Tensor | None, keep: Tensor | None, threshold: int, before: bool) -> Tensor:
    """`reference` for Inductor's GPU code."""
    return _Coded.apply(x, bias, keep, threshold, before)
