"""Bias, the larger of each two adjacent channels, and dropout in one pass.

    h = x + bias,   y[c] = max(h[2c], h[2c + 1])     then dropout of y (order "after"),
                                                     or first dropout of h (order "before")

With `halves` the channels c and C + c of x and bias compete: those of a network whose maps 0, 2, 4, ... were put before
1, 3, 5, ... The same seeds drop the same maps of it, so decisions on h are drawn in adjacent order still. That is for
CPUs alone: Inductor's C++ reads halves in vectors, and every other channel one by one.

x: [N, 2C, H, W], y: [N, C, H, W], float32, float16 or bfloat16 (float64 without kernels); bias: [2C], or [2C, H, W] if
untied, or none; arithmetic in float32. A tie goes to the first channel; a NaN in either is the result.

Backward needs neither x nor the seeds: the forward keeps one byte an output, bit 0 which channel won, bit 1 whether
it was kept, in either order. dx = dy * scale where won and kept, else 0. Adding it up for a tied bias is part of the
same pass: each program over its rows, then torch over the programs, in a fixed order. An untied bias gets the sum of
dx over N.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import triton_op

from csrc_triton import check, launch, maps, philox
from csrc_triton.launch import wrap_triton
from csrc_triton.maxout_formulas import coded, reference, reference_backward, reference_code
from csrc_triton.philox import channel_uniforms

ORDERS = ("after", "before")

# ---------------------------------------------------------------- kernels
# C counts output channels, BC those of a program; of x, dx and bias they take twice as many, adjacent in memory.


@triton.jit(do_not_specialize=["slot", "threshold"])
def forward_kernel(
    x_ptr,  # [M, 2C]
    bias_ptr,  # [2C] or, UNTIED, [2C, pixels]; None for no bias
    y_ptr,  # [M, C]
    code_ptr,  # uint8 [M, C]
    seeds_ptr,  # int64 [K], or None for no dropout
    slot,
    threshold,
    scale,
    M,
    C,
    pixels,  # H * W
    UNTIED: tl.constexpr,
    BEFORE: tl.constexpr,
    BM: tl.constexpr,
    BC: tl.constexpr,
):
    scale = tl.cast(scale, tl.float32)
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    first_col = tl.program_id(1) * BC
    cols = first_col + tl.arange(0, BC)
    cols2 = 2 * first_col + tl.arange(0, 2 * BC)
    inside2 = (rows[:, None] < M) & (cols2[None, :] < 2 * C)
    h = tl.load(x_ptr + rows[:, None] * (2 * C) + cols2[None, :], mask=inside2, other=0.0).to(tl.float32)
    if bias_ptr is not None:
        if UNTIED:
            places = cols2[None, :] * pixels + (rows % pixels)[:, None]
            h += tl.load(bias_ptr + places, mask=inside2, other=0.0).to(tl.float32)
        else:
            h += tl.load(bias_ptr + cols2, mask=cols2 < 2 * C, other=0.0).to(tl.float32)[None, :]
    if seeds_ptr is not None and BEFORE:
        keep2 = channel_uniforms(tl.load(seeds_ptr + slot), rows, 2 * first_col, 2 * C, 2 * BC) >= threshold
        h = tl.where(keep2, h * scale, 0.0)
    first, second = tl.split(tl.reshape(h, [BM, BC, 2]))
    wins = (second > first) | (second != second)
    y = tl.where(wins, second, first)
    code = wins.to(tl.int32) + 2
    if seeds_ptr is not None:
        if BEFORE:
            keep_first, keep_second = tl.split(tl.reshape(keep2.to(tl.int32), [BM, BC, 2]))
            code = wins.to(tl.int32) + 2 * tl.where(wins, keep_second, keep_first)
        else:
            keep = channel_uniforms(tl.load(seeds_ptr + slot), rows, first_col, C, BC) >= threshold
            y = tl.where(keep, y * scale, 0.0)
            code = wins.to(tl.int32) + 2 * keep.to(tl.int32)
    inside = (rows[:, None] < M) & (cols[None, :] < C)
    offsets = rows[:, None] * C + cols[None, :]
    tl.store(y_ptr + offsets, y.to(y_ptr.dtype.element_ty), mask=inside)
    tl.store(code_ptr + offsets, code.to(tl.uint8), mask=inside)


@triton.jit
def backward_kernel(
    dy_ptr,  # [M, C]
    code_ptr,  # uint8 [M, C]
    dx_ptr,  # [M, 2C]
    partial_ptr,  # fp32 [parts, 2C], or None for no tied bias
    scale,
    M,
    C,
    part_rows,
    BM: tl.constexpr,
    BC: tl.constexpr,
):
    scale = tl.cast(scale, tl.float32)
    part = tl.program_id(0)
    first_col = tl.program_id(1) * BC
    cols = first_col + tl.arange(0, BC)
    cols2 = 2 * first_col + tl.arange(0, 2 * BC)
    end = tl.minimum((part + 1) * part_rows, M)
    first_total = tl.zeros((BM, BC), tl.float32)
    second_total = tl.zeros((BM, BC), tl.float32)
    for row in range(part * part_rows, end, BM):
        rows = row + tl.arange(0, BM)
        inside = (rows[:, None] < end) & (cols[None, :] < C)
        offsets = rows[:, None] * C + cols[None, :]
        g = tl.load(dy_ptr + offsets, mask=inside, other=0.0).to(tl.float32) * scale
        code = tl.load(code_ptr + offsets, mask=inside, other=0)
        first = tl.where(code == 2, g, 0.0)
        second = tl.where(code == 3, g, 0.0)
        dx = tl.reshape(tl.join(first, second), [BM, 2 * BC])
        inside2 = (rows[:, None] < end) & (cols2[None, :] < 2 * C)
        places = rows[:, None] * (2 * C) + cols2[None, :]
        tl.store(dx_ptr + places, dx.to(dx_ptr.dtype.element_ty), mask=inside2)
        first_total += first
        second_total += second
    if partial_ptr is not None:
        total = tl.reshape(tl.join(tl.sum(first_total, 0), tl.sum(second_total, 0)), [2 * BC])
        tl.store(partial_ptr + part * (2 * C) + cols2, total, mask=cols2 < 2 * C)


# ---------------------------------------------------------------- launchers (channels-last maps)


def launch_forward(
    x: Tensor, bias: Tensor | None, threshold: int, before: bool, seeds: Tensor | None, slot: int
) -> tuple[Tensor, Tensor]:
    """y and the code."""
    check.layout("maxout", x=x)
    y = maps.empty_map(x, x.shape[1] // 2)
    code = torch.empty_like(y, dtype=torch.uint8)
    M, C = maps.rows_and_channels(y)
    tile = launch.tile_for(C)
    wrap_triton(forward_kernel)[(triton.cdiv(M, tile.rows), triton.cdiv(C, tile.channels))](
        x,
        bias,
        y,
        code,
        seeds if threshold else None,
        slot,
        threshold,
        philox.kept_scale(threshold),
        M,
        C,
        x.shape[2] * x.shape[3],
        UNTIED=bias is not None and bias.dim() == 3,
        BEFORE=before,
        BM=tile.rows,
        BC=tile.channels,
        num_warps=tile.warps,
    )
    return y, code


def launch_backward(dy: Tensor, code: Tensor, threshold: int, tied: bool) -> tuple[Tensor, Tensor]:
    """dx, and its sum over all but the channels, fp32 [2C] (empty unless tied)."""
    check.layout("maxout", dy=dy, code=code)
    dx = maps.empty_map(dy, 2 * dy.shape[1])
    M, C = maps.rows_and_channels(dy)
    tile = launch.tile_for(C)
    columns = triton.cdiv(C, tile.channels)
    split, partial = launch.RowSplit(triton.cdiv(M, tile.rows), tile.rows), None
    if tied:
        split = launch.split_rows(M, tile.rows, columns, max_parts=launch.PROGRAMS)
        partial = torch.empty((split.parts, 2 * C), dtype=torch.float32, device=dy.device)
    wrap_triton(backward_kernel)[(split.parts, columns)](
        dy,
        code,
        dx,
        partial,
        philox.kept_scale(threshold),
        M,
        C,
        split.rows,
        BM=tile.rows,
        BC=tile.channels,
        num_warps=tile.warps,
    )
    if partial is None:
        return dx, dy.new_empty(0, dtype=torch.float32)
    return dx, partial.sum(0) if split.parts > 1 else partial.view(2 * C)


# ---------------------------------------------------------------- registration


def _keep(backend: str, x: Tensor, threshold: int, before: bool, seeds: Tensor | None, slot: int) -> Tensor | None:
    """Decisions on x (before) or on y."""
    return philox.keep_mask(backend, x if before else x[:, ::2], threshold, seeds, slot)


@triton_op("csrc_triton::maxout", mutates_args=())
def forward_op(
    x: Tensor, bias: Tensor | None, threshold: int, before: bool, seeds: Tensor | None, slot: int, halves: bool = False
) -> tuple[Tensor, Tensor]:
    x = maps.channels_last(x)
    bias = None if bias is None else bias.contiguous()
    if not launch.runs_kernels(x):
        arguments = (x, bias, _keep("eager", x, threshold, before, seeds, slot), threshold, before, halves)
        return maps.channels_last(reference(*arguments)), maps.channels_last(reference_code(*arguments))
    assert not halves, "the kernels take adjacent channels"
    return launch_forward(x, bias, threshold, before, seeds, slot)


@triton_op("csrc_triton::maxout_backward", mutates_args=())
def backward_op(dy: Tensor, code: Tensor, threshold: int, tied: bool, halves: bool = False) -> tuple[Tensor, Tensor]:
    dy, code = maps.channels_last(dy), maps.channels_last(code)
    if not launch.runs_kernels(dy):
        dx, total = reference_backward(dy, code, threshold, halves)
        return maps.channels_last(dx), total if tied else total.new_empty(0)
    return launch_backward(dy, code, threshold, tied)


@forward_op.register_fake
def _(x, bias, threshold, before, seeds, slot, halves=False):
    y = maps.empty_map(x, x.shape[1] // 2)
    return y, torch.empty_like(y, dtype=torch.uint8)


@backward_op.register_fake
def _(dy, code, threshold, tied, halves=False):
    single = maps.arithmetic_dtype(dy.dtype)
    return maps.empty_map(dy, 2 * dy.shape[1]), dy.new_empty(2 * dy.shape[1] if tied else 0, dtype=single)


def _setup_context(ctx, inputs, output):
    _, bias, ctx.threshold, *_, ctx.halves = inputs
    ctx.bias_dtype, ctx.tied = (None, False) if bias is None else (bias.dtype, bias.dim() == 1)
    ctx.save_for_backward(output[1])
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _backward(ctx, dy, _):
    (code,) = ctx.saved_tensors
    with_bias = ctx.bias_dtype is not None and ctx.needs_input_grad[1]
    dx, dbias = backward_op(dy, code, ctx.threshold, with_bias and ctx.tied, ctx.halves)
    if with_bias and not ctx.tied:
        dbias = dx.sum(0, dtype=maps.arithmetic_dtype(dx.dtype))
    return dx, dbias.to(ctx.bias_dtype) if with_bias else None, None, None, None, None, None


forward_op.register_autograd(_backward, setup_context=_setup_context)
backward_op.register_autograd(check.no_second_derivative("maxout"))

# ---------------------------------------------------------------- public


def maxout(
    x: Tensor,
    bias: Tensor | None = None,
    *,
    dropout: float = 0.0,
    order: str = "after",
    halves: bool = False,
    seeds: Tensor | None = None,
    slot: int = 0,
    backend: str,
) -> Tensor:
    """The larger of each two channels of x + bias, with dropout; the module says what is what.

    dropout: probability of zeroing, of y (order "after") or of x + bias (order "before"). halves: whether c and C + c
    compete, not 2c and 2c + 1. seeds, slot: see `csrc_triton.philox`; "inductor" takes torch's own generator. backend:
    "eager" and "triton" give the same values, mask included; "triton" on a CPU tensor runs the reference. ValueError
    for a shape, dtype, device, order or dropout it cannot take, and for halves with kernels.
    """
    check.backend("maxout", backend)
    check.shape("maxout", "x", x, (None,) * 4, "[N, 2C, H, W]")
    check.dtype("maxout", "x", x, backend)
    if x.shape[1] % 2:
        raise ValueError(f"maxout: x has shape {list(x.shape)}: an even number of channels is needed")
    if bias is not None:
        tied = bias.dim() == 1
        wanted, symbols = (x.shape[1:2], "[2C]") if tied else (x.shape[1:], "[2C] or [2C, H, W]")
        check.shape("maxout", "bias", bias, wanted, symbols)
        check.dtype("maxout", "bias", bias, backend)
    if order not in ORDERS:
        raise ValueError(f"maxout: order is {order!r}: one of {', '.join(ORDERS)} is needed")
    if halves and backend == "triton" and launch.runs_kernels(x):
        raise ValueError("maxout: halves on a GPU: its kernels take adjacent channels")
    threshold, before = philox.dropout_threshold(dropout), order == "before"
    check.device("maxout", x, bias=bias, seeds=seeds)
    if threshold and backend != "inductor":
        check.seeds("maxout", seeds, slot)
    if backend == "triton":
        return forward_op(x, bias, threshold, before, seeds, slot, halves)[0]
    keep = _keep(backend, x, threshold, before, seeds, slot)
    if launch.runs_kernels(x) and torch.compiler.is_compiling() and not halves:  # for a GPU
        return coded(x, bias, keep, threshold, before)
    return reference(x, bias, keep, threshold, before, halves)
