"""Bias, maxout of two adjacent channels and dropout in one pass.

    h = x + bias,   y[c] = max(h[2c], h[2c+1])         x: [N, 2C, H, W], y: [N, C, H, W]

with dropout of y (order "after"), of h before the maximum (order "before"), or none. bias: [2C] (tied), [2C, H, W]
(untied) or none. float32, float16 or bfloat16 (float64 without kernels); arithmetic in float32. A tie goes to the
first channel.

A byte an output says which channel won (bit 0) and whether it was kept (bit 1). The backward reads dy and that byte
alone: the convolution's output need not live until then. The bias gradient is the sum of dx over what the bias was
spread over; tied, each program sums its rows and torch the programs, in a fixed order.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import triton_op

from csrc_triton import launch, philox
from csrc_triton.launch import wrap_triton

ORDERS = ("after", "before")

# ---------------------------------------------------------------- reference


def _spread(bias: Tensor) -> Tensor:
    return bias[None, :, None, None] if bias.dim() == 1 else bias[None]



def reference(x: Tensor, bias: Tensor | None, keep: Tensor | None, threshold: int, before: bool) -> Tensor:
    """keep: uint8 or bool, like x (before) or like y, or None for no dropout."""
    h = x.to(torch.promote_types(x.dtype, torch.float32))
    if bias is not None:
        h = h + _spread(bias).to(h.dtype)
    if before and keep is not None:
        h = philox.drop(h, keep, threshold)
    first, second = h.permute(0, 2, 3, 1).unflatten(-1, (-1, 2)).unbind(-1)
    # `where` and not `amax`, whose gradient splits ties and takes another pass
    y = torch.where(second > first, second, first).permute(0, 3, 1, 2)
    if keep is not None and not before:
        y = philox.drop(y, keep, threshold)
    return y.to(x.dtype)


def reference_code(x: Tensor, bias: Tensor | None, keep: Tensor | None, threshold: int, before: bool) -> Tensor:
    """int8 like y: bit 0 the second channel won, bit 1 it was kept."""
    h = x.to(torch.promote_types(x.dtype, torch.float32))
    if bias is not None:
        h = h + _spread(bias).to(h.dtype)
    if before and keep is not None:
        h = philox.drop(h, keep, threshold)
    won = (h[:, 1::2] > h[:, 0::2]).to(torch.int8)
    if keep is None:
        return won + 2
    if before:
        kept = torch.where(won != 0, keep[:, 1::2].to(torch.int8), keep[:, 0::2].to(torch.int8))
    else:
        kept = keep.to(torch.int8)
    return won + 2 * kept


def reference_backward(dy: Tensor, code: Tensor, threshold: int) -> Tensor:
    """dx [N, 2C, H, W] in dy's dtype."""
    g = dy.to(torch.promote_types(dy.dtype, torch.float32)) * philox.kept_scale(threshold)
    pair = torch.stack([torch.where(code == 2, g, 0.0), torch.where(code == 3, g, 0.0)], dim=2)
    return pair.flatten(1, 2).to(dy.dtype)


# ---------------------------------------------------------------- kernels


@triton.jit(do_not_specialize=["slot", "threshold"])
def forward_kernel(
    x_ptr,  # [M, 2C]
    bias_ptr,  # [2C], [PIXELS, 2C] (untied) or None
    y_ptr,  # [M, C]
    code_ptr,  # int8 [M, C]
    seeds_ptr,  # int64 [K], or None for no dropout
    slot,
    threshold,
    scale,
    M,
    C,
    PIXELS,
    UNTIED: tl.constexpr,
    BEFORE: tl.constexpr,
    BM: tl.constexpr,
    BC: tl.constexpr,
):
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    first = tl.program_id(1) * BC
    cols = first + tl.arange(0, BC)
    pairs = 2 * first + tl.arange(0, 2 * BC)
    inside = (rows[:, None] < M) & (pairs[None, :] < 2 * C)
    h = tl.load(x_ptr + rows[:, None] * (2 * C) + pairs[None, :], mask=inside, other=0.0).to(tl.float32)
    if bias_ptr is not None:
        if UNTIED:
            at = (rows % PIXELS)[:, None] * (2 * C) + pairs[None, :]
            h += tl.load(bias_ptr + at, mask=inside, other=0.0).to(tl.float32)
        else:
            h += tl.load(bias_ptr + pairs, mask=pairs < 2 * C, other=0.0).to(tl.float32)[None, :]
    if BEFORE:
        uniforms = philox.channel_uniforms(tl.load(seeds_ptr + slot), rows, 2 * first, 2 * C, 2 * BC)
        keep = (uniforms >= threshold).to(tl.int32)
        h = tl.where(keep != 0, h * scale, 0.0)
        keep_a, keep_b = tl.split(tl.reshape(keep, [BM, BC, 2]))
    a, b = tl.split(tl.reshape(h, [BM, BC, 2]))
    won = b > a
    y = tl.where(won, b, a)
    code = won.to(tl.int32)
    if BEFORE:
        code += 2 * tl.where(won, keep_b, keep_a)
    elif seeds_ptr is not None:
        uniforms = philox.channel_uniforms(tl.load(seeds_ptr + slot), rows, first, C, BC)
        keep = uniforms >= threshold
        y = tl.where(keep, y * scale, 0.0)
        code += 2 * keep.to(tl.int32)
    else:
        code += 2
    inside_y = (rows[:, None] < M) & (cols[None, :] < C)
    offsets = rows[:, None] * C + cols[None, :]
    tl.store(y_ptr + offsets, y.to(y_ptr.dtype.element_ty), mask=inside_y)
    tl.store(code_ptr + offsets, code.to(tl.int8), mask=inside_y)


@triton.jit
def backward_kernel(
    dy_ptr,  # [M, C]
    code_ptr,  # int8 [M, C]
    dx_ptr,  # [M, 2C]
    partial_ptr,  # fp32 [parts, 2C], or None for no tied bias
    scale,
    M,
    C,
    part_rows,
    BM: tl.constexpr,
    BC: tl.constexpr,
):
    part = tl.program_id(0)
    first = tl.program_id(1) * BC
    cols = first + tl.arange(0, BC)
    pairs = 2 * first + tl.arange(0, 2 * BC)
    end = tl.minimum((part + 1) * part_rows, M)
    total = tl.zeros((BM, 2 * BC), tl.float32)
    for row in range(part * part_rows, end, BM):
        rows = row + tl.arange(0, BM)
        inside = (rows[:, None] < end) & (cols[None, :] < C)
        offsets = rows[:, None] * C + cols[None, :]
        g = tl.load(dy_ptr + offsets, mask=inside, other=0.0).to(tl.float32) * scale
        code = tl.load(code_ptr + offsets, mask=inside, other=0).to(tl.int32)
        dx = tl.reshape(tl.join(tl.where(code == 2, g, 0.0), tl.where(code == 3, g, 0.0)), [BM, 2 * BC])
        inside_x = (rows[:, None] < end) & (pairs[None, :] < 2 * C)
        at = rows[:, None] * (2 * C) + pairs[None, :]
        tl.store(dx_ptr + at, dx.to(dx_ptr.dtype.element_ty), mask=inside_x)
        total += dx
    if partial_ptr is not None:
        tl.store(partial_ptr + part * 2 * C + pairs, tl.sum(total, 0), mask=pairs < 2 * C)


# ---------------------------------------------------------------- launchers (channels-last maps)


def launch_forward(
    x: Tensor, bias: Tensor | None, threshold: int, before: bool, seeds: Tensor | None, slot: int
) -> tuple[Tensor, Tensor]:
    """y and code. An untied bias must lie in channels-last memory: [H, W, 2C]."""
    launch.check_layout("maxout", x=x)
    M, channels = launch.rows_and_channels(x)
    C, untied = channels // 2, bias is not None and bias.dim() == 3
    y = launch.empty_map(x, C)
    code = torch.empty_like(y, dtype=torch.int8)
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
        UNTIED=untied,
        BEFORE=before and threshold > 0,
        BM=max(1, tile.rows // 2),
        BC=tile.channels,
        num_warps=tile.warps,
    )
    return y, code


def launch_backward(dy: Tensor, code: Tensor, threshold: int, with_bias: bool) -> tuple[Tensor, Tensor]:
    """dx, and the tied bias's gradient fp32 [2C] (empty unless with_bias)."""
    launch.check_layout("maxout", dy=dy, code=code)
    M, C = launch.rows_and_channels(dy)
    dx = launch.empty_map(dy, 2 * C)
    tile = launch.tile_for(C)
    rows, columns = max(1, tile.rows // 2), triton.cdiv(C, tile.channels)
    split = launch.RowSplit(triton.cdiv(M, rows), rows)
    partial = None
    if with_bias:
        split = launch.split_rows(M, rows, columns, max_parts=264)
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
        BM=rows,
        BC=tile.channels,
        num_warps=tile.warps,
    )
    if partial is None:
        return dx, dy.new_empty(0, dtype=torch.float32)
    return dx, partial.sum(0) if split.parts > 1 else partial.view(2 * C)


# ---------------------------------------------------------------- registration


def _keep(seeds: Tensor | None, slot: int, threshold: int, x: Tensor, before: bool) -> Tensor | None:
    if not threshold or seeds is None:
        return None
    n, channels, height, width = x.shape
    return philox.channel_keep(seeds, slot, threshold, (n, channels if before else channels // 2, height, width))


@triton_op("csrc_triton::maxout", mutates_args=())
def forward_op(
    x: Tensor, bias: Tensor | None, threshold: int, before: bool, seeds: Tensor | None, slot: int
) -> tuple[Tensor, Tensor]:
    x = launch.channels_last(x)
    if x.device.type != "cuda":
        keep = _keep(seeds, slot, threshold, x, before)
        code = reference_code(x, bias, keep, threshold, before)
        return launch.channels_last(reference(x, bias, keep, threshold, before)), launch.channels_last(code)
    if bias is not None and bias.dim() == 3:
        bias = bias.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    return launch_forward(x, bias, threshold, before, seeds, slot)


@triton_op("csrc_triton::maxout_backward", mutates_args=())
def backward_op(dy: Tensor, code: Tensor, threshold: int, with_bias: bool) -> tuple[Tensor, Tensor]:
    dy = launch.channels_last(dy)
    if dy.device.type != "cuda":
        dx = launch.channels_last(reference_backward(dy, code, threshold))
        db = dx.to(torch.promote_types(dx.dtype, torch.float32)).sum((0, 2, 3))
        return dx, db if with_bias else db.new_empty(0)
    return launch_backward(dy, code, threshold, with_bias)


@forward_op.register_fake
def _(x, bias, threshold, before, seeds, slot):
    y = launch.empty_map(x, x.shape[1] // 2)
    return y, torch.empty_like(y, dtype=torch.int8)


@backward_op.register_fake
def _(dy, code, threshold, with_bias):
    channels = 2 * dy.shape[1]
    single = torch.promote_types(dy.dtype, torch.float32)
    return launch.empty_map(dy, channels), dy.new_empty(channels if with_bias else 0, dtype=single)


def _setup_context(ctx, inputs, output):
    _, bias, threshold, _, _, _ = inputs
    _, code = output
    ctx.mark_non_differentiable(code)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(code)
    ctx.threshold = threshold
    ctx.bias = None if bias is None else (bias.dtype, bias.dim())


def _backward(ctx, dy, _):
    (code,) = ctx.saved_tensors
    wanted = ctx.bias is not None and ctx.needs_input_grad[1]
    dx, db = backward_op(dy, code, ctx.threshold, wanted and ctx.bias[1] == 1)
    if wanted and ctx.bias[1] == 3:
        db = dx.to(torch.promote_types(dx.dtype, torch.float32)).sum(0)
    return dx, db.to(ctx.bias[0]) if wanted else None, None, None, None, None


forward_op.register_autograd(_backward, setup_context=_setup_context)
backward_op.register_autograd(launch.no_second_derivative("maxout"))

# ---------------------------------------------------------------- public


def maxout(
    x: Tensor,
    bias: Tensor | None = None,
    *,
    dropout: float = 0.0,
    order: str = "after",
    seeds: Tensor | None = None,
    slot: int = 0,
    backend: str,
) -> Tensor:
    """The larger of each two adjacent channels of x + bias, with dropout; the module says what is what.

    dropout: probability of zeroing. order: "after" drops y, "before" drops x + bias. seeds, slot: see
    `csrc_triton.philox`; "inductor" takes torch's own generator. backend: "eager" and "triton" give the same values,
    mask included; "triton" on a CPU tensor runs the reference. ValueError for a shape, dtype, device, order or dropout
    it cannot take.
    """
    launch.check_backend("maxout", backend)
    launch.check_shape("maxout", "x", x, (None,) * 4, "[N, 2C, H, W]")
    launch.check_dtype("maxout", "x", x, backend)
    if x.shape[1] % 2:
        raise ValueError(f"maxout: x has shape {list(x.shape)}: an even number of channels is needed")
    if bias is not None:
        shape = x.shape[1:2] if bias.dim() == 1 else x.shape[1:]
        launch.check_shape("maxout", "bias", bias, shape, "[2C] or [2C, H, W]")
    if order not in ORDERS:
        raise ValueError(f"maxout: order is {order!r}: one of {', '.join(ORDERS)} is needed")
    threshold = philox.dropout_threshold(dropout)
    launch.check_device("maxout", x, bias=bias, seeds=seeds)
    if threshold and backend != "inductor":
        launch.check_seeds("maxout", seeds, slot)
    before = order == "before"
    if backend == "triton":
        return forward_op(x, bias, threshold, before, seeds, slot)[0]
    if threshold and backend == "inductor":
        like = x if before else x[:, ::2]
        keep = torch.rand_like(like, dtype=torch.float32) >= threshold / 65536
    else:
        keep = _keep(seeds, slot, threshold, x, before)
    return reference(x, bias, keep, threshold, before)
