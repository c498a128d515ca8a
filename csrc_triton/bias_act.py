"""Bias, leaky ReLU and dropout in one pass.

    y = dropout(lrelu(x + bias)),   lrelu(h) = h if h > 0 else slope * h

x, y: [N, C, H, W], float32, float16 or bfloat16 (float64 without kernels); bias: [C] or none; arithmetic in float32.
slope = 1 is no nonlinearity: with no bias that is plain dropout, as on the discriminator's input.

Backward needs neither x nor bias: y > 0 where h > 0, and where y was dropped the mask, made again from its seed, stops
the gradient. So it reads dy and y, writes dx = dy * scale * keep * (1 or slope), and adds dx up for the bias:
each program over its rows, then torch over the programs, in a fixed order.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import triton_op

from csrc_triton import check, launch, maps, philox
from csrc_triton.launch import wrap_triton
from csrc_triton.philox import drop_channels

# ---------------------------------------------------------------- reference


def reference(x: Tensor, bias: Tensor | None, slope: float, keep: Tensor | None, threshold: int) -> Tensor:
    """keep: uint8 or bool like x, or None for no dropout."""
    h = maps.widened(x)
    if bias is not None:
        h = h + bias.to(h.dtype)[None, :, None, None]
    if slope != 1.0:
        h = torch.where(h > 0, h, h * slope)
    if keep is not None:
        h = philox.drop(h, keep, threshold)
    return h.to(x.dtype)


def reference_backward(
    dy: Tensor, y: Tensor | None, slope: float, keep: Tensor | None, threshold: int
) -> tuple[Tensor, Tensor]:
    """dx like dy, and the bias gradient [C] in the arithmetic's dtype."""
    g = maps.widened(dy)
    if keep is not None:
        g = philox.drop(g, keep, threshold)
    if y is not None:
        g = torch.where(y > 0, g, g * slope)
    return g.to(dy.dtype), maps.channel_sums(g)


# ---------------------------------------------------------------- kernels


@triton.jit(do_not_specialize=["slot", "threshold"])
def forward_kernel(
    x_ptr,  # [M, C]
    bias_ptr,  # [C] or None
    y_ptr,  # [M, C]
    seeds_ptr,  # int64 [K], or None for no dropout
    slot,
    threshold,
    scale,
    slope,
    M,
    C,
    ACT: tl.constexpr,
    BM: tl.constexpr,
    BC: tl.constexpr,
):
    scale, slope = tl.cast(scale, tl.float32), tl.cast(slope, tl.float32)
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    first = tl.program_id(1) * BC
    cols = first + tl.arange(0, BC)
    inside = (rows[:, None] < M) & (cols[None, :] < C)
    offsets = rows[:, None] * C + cols[None, :]
    h = tl.load(x_ptr + offsets, mask=inside, other=0.0).to(tl.float32)
    if bias_ptr is not None:
        h += tl.load(bias_ptr + cols, mask=cols < C, other=0.0).to(tl.float32)[None, :]
    if ACT:
        h = tl.where(h > 0, h, h * slope)
    h = drop_channels(h, seeds_ptr, slot, threshold, scale, rows, first, C, BC)
    tl.store(y_ptr + offsets, h.to(y_ptr.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["slot", "threshold"])
def backward_kernel(
    dy_ptr,  # [M, C]
    y_ptr,  # [M, C], or None for slope 1
    dx_ptr,  # [M, C]
    partial_ptr,  # fp32 [parts, C], or None for no bias
    seeds_ptr,  # int64 [K], or None for no dropout
    slot,
    threshold,
    scale,
    slope,
    M,
    C,
    part_rows,
    BM: tl.constexpr,
    BC: tl.constexpr,
):
    scale, slope = tl.cast(scale, tl.float32), tl.cast(slope, tl.float32)
    part = tl.program_id(0)
    first = tl.program_id(1) * BC
    cols = first + tl.arange(0, BC)
    end = tl.minimum((part + 1) * part_rows, M)
    total = tl.zeros((BM, BC), tl.float32)
    for row in range(part * part_rows, end, BM):
        rows = row + tl.arange(0, BM)
        inside = (rows[:, None] < end) & (cols[None, :] < C)
        offsets = rows[:, None] * C + cols[None, :]
        g = tl.load(dy_ptr + offsets, mask=inside, other=0.0).to(tl.float32)
        g = drop_channels(g, seeds_ptr, slot, threshold, scale, rows, first, C, BC)
        if y_ptr is not None:
            y = tl.load(y_ptr + offsets, mask=inside, other=0.0).to(tl.float32)
            g = tl.where(y > 0, g, g * slope)
        tl.store(dx_ptr + offsets, g.to(dx_ptr.dtype.element_ty), mask=inside)
        total += g
    if partial_ptr is not None:
        tl.store(partial_ptr + part * C + cols, tl.sum(total, 0), mask=cols < C)


# ---------------------------------------------------------------- launchers (channels-last maps)


def launch_forward(
    x: Tensor, bias: Tensor | None, slope: float, threshold: int, seeds: Tensor | None, slot: int
) -> Tensor:
    check.layout("bias_act", x=x)
    y = maps.empty_map(x)
    M, C = maps.rows_and_channels(x)
    tile = launch.tile_for(C)
    wrap_triton(forward_kernel)[(triton.cdiv(M, tile.rows), triton.cdiv(C, tile.channels))](
        x,
        bias,
        y,
        seeds if threshold else None,
        slot,
        threshold,
        philox.kept_scale(threshold),
        slope,
        M,
        C,
        ACT=slope != 1.0,
        BM=tile.rows,
        BC=tile.channels,
        num_warps=tile.warps,
    )
    return y


def launch_backward(
    dy: Tensor, y: Tensor | None, slope: float, threshold: int, seeds: Tensor | None, slot: int, with_bias: bool
) -> tuple[Tensor, Tensor]:
    """dx, and the bias gradient fp32 [C] (empty unless with_bias)."""
    check.layout("bias_act", dy=dy, y=dy if y is None else y)
    dx = maps.empty_map(dy)
    M, C = maps.rows_and_channels(dy)
    tile = launch.tile_for(C)
    columns = triton.cdiv(C, tile.channels)
    split = launch.RowSplit(triton.cdiv(M, tile.rows), tile.rows)
    partial = None
    if with_bias:
        split = launch.split_rows(M, tile.rows, columns, max_parts=launch.PROGRAMS)
        partial = torch.empty((split.parts, C), dtype=torch.float32, device=dy.device)
    wrap_triton(backward_kernel)[(split.parts, columns)](
        dy,
        y,
        dx,
        partial,
        seeds if threshold else None,
        slot,
        threshold,
        philox.kept_scale(threshold),
        slope,
        M,
        C,
        split.rows,
        BM=tile.rows,
        BC=tile.channels,
        num_warps=tile.warps,
    )
    if partial is None:
        return dx, dy.new_empty(0, dtype=torch.float32)
    return dx, partial.sum(0) if split.parts > 1 else partial.view(C)


# ---------------------------------------------------------------- registration


@triton_op("csrc_triton::bias_act", mutates_args=())
def forward_op(x: Tensor, bias: Tensor | None, slope: float, threshold: int, seeds: Tensor | None, slot: int) -> Tensor:
    x, bias = maps.channels_last(x), None if bias is None else bias.contiguous()
    if not launch.runs_kernels(x):
        keep = philox.keep_mask("eager", x, threshold, seeds, slot)
        return maps.fresh_map(reference(x, bias, slope, keep, threshold), x)
    return launch_forward(x, bias, slope, threshold, seeds, slot)


@triton_op("csrc_triton::bias_act_backward", mutates_args=())
def backward_op(
    dy: Tensor, y: Tensor | None, slope: float, threshold: int, seeds: Tensor | None, slot: int, with_bias: bool
) -> tuple[Tensor, Tensor]:
    dy = maps.channels_last(dy)
    if not launch.runs_kernels(dy):
        keep = philox.keep_mask("eager", dy, threshold, seeds, slot)
        dx, db = reference_backward(dy, y, slope, keep, threshold)
        return maps.fresh_map(dx, dy), db if with_bias else db.new_empty(0)
    return launch_backward(dy, y, slope, threshold, seeds, slot, with_bias)


@forward_op.register_fake
def _(x, bias, slope, threshold, seeds, slot):
    return maps.empty_map(x)


@backward_op.register_fake
def _(dy, y, slope, threshold, seeds, slot, with_bias):
    single = maps.arithmetic_dtype(dy.dtype)
    return maps.empty_map(dy), dy.new_empty(dy.shape[1] if with_bias else 0, dtype=single)


def _setup_context(ctx, inputs, output):
    _, bias, slope, threshold, seeds, slot = inputs
    ctx.save_for_backward(output if slope != 1.0 else None, seeds)
    ctx.slope, ctx.threshold, ctx.slot = slope, threshold, slot
    ctx.bias_dtype = None if bias is None else bias.dtype


def _backward(ctx, dy):
    y, seeds = ctx.saved_tensors
    with_bias = ctx.bias_dtype is not None and ctx.needs_input_grad[1]
    dx, db = backward_op(dy, y, ctx.slope, ctx.threshold, seeds, ctx.slot, with_bias)
    return dx, db.to(ctx.bias_dtype) if with_bias else None, None, None, None, None


forward_op.register_autograd(_backward, setup_context=_setup_context)
backward_op.register_autograd(check.no_second_derivative("bias_act"))

# ---------------------------------------------------------------- public


def bias_act(
    x: Tensor,
    bias: Tensor | None = None,
    slope: float = 1.0,
    *,
    dropout: float = 0.0,
    seeds: Tensor | None = None,
    slot: int = 0,
    backend: str,
) -> Tensor:
    """dropout(lrelu(x + bias)); the module says what is what.

    dropout: probability of zeroing. seeds, slot: see `csrc_triton.philox`; "inductor" takes torch's own generator.
    backend: "eager" and "triton" give the same values, mask included; "triton" on a CPU tensor runs the reference.
    ValueError for a shape, dtype, device, slope or dropout it cannot take.
    """
    check.backend("bias_act", backend)
    check.shape("bias_act", "x", x, (None,) * 4, "[N, C, H, W]")
    check.dtype("bias_act", "x", x, backend)
    if bias is not None:
        check.shape("bias_act", "bias", bias, x.shape[1:2], "[C]")
        check.dtype("bias_act", "bias", bias, backend)
    if not 0.0 <= slope <= 1.0:
        raise ValueError(f"bias_act: slope is {slope}: 0 to 1 is needed")
    threshold = philox.dropout_threshold(dropout)
    check.device("bias_act", x, bias=bias, seeds=seeds)
    if threshold and backend != "inductor":
        check.seeds("bias_act", seeds, slot)
    if bias is None and slope == 1.0 and not threshold:
        return x
    if backend == "triton":
        return forward_op(x, bias, slope, threshold, seeds, slot)
    keep = philox.keep_mask(backend, x, threshold, seeds, slot)
    return reference(x, bias, slope, keep, threshold)
