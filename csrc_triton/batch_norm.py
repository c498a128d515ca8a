"""Batch norm of the batch's own statistics, leaky ReLU and dropout in one pass.

    y = dropout(lrelu(h)),   h = (x - mean) * weight / sqrt(var + eps) + bias,   lrelu(h) = h if h > 0 else slope * h

x, y: [N, C, H, W], float32, float16 or bfloat16 (float64 without kernels); weight, bias: [C]; mean, var: float32 [C],
of x over N, H, W, var biased. Statistics and arithmetic in float32. With g = dy * keep * scale * (1 or slope), over the
M = N*H*W rows:

    dbias = sum g,   dweight = sum g * x_hat,   dx = (g - dbias / M - x_hat * dweight / M) * weight / sqrt(var + eps)

The backward keeps x, mean, var and makes h and the mask again. No atomics, every sum in a fixed order: the same input
gives the same bits. Up to SMALL_ROWS rows one launch each way, each program with all rows of its channels in
registers. Beyond, two: one sums ranges of rows, the next merges the sums (Chan et al., "Updating formulae", 1979) and
applies them, each program walking back over the rows it has summed, of which the last are still in L2. Sums are
taken about a row of the data, so that a mean far larger than the deviation costs no digits.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import triton_op

from csrc_triton import check, launch, maps, philox
from csrc_triton.batch_norm_formulas import LARGE, about_a_row, image_by_image, reference, reference_backward
from csrc_triton.launch import wrap_triton
from csrc_triton.philox import drop_channels

SMALL_ROWS = 2048

# ---------------------------------------------------------------- kernels
# x, y, dy, dx: [M, C]. mean, var, dweight, dbias: fp32 [C]; their plurals and squares: fp32 [parts, C], of each range
# of part_rows rows. weight, bias: [C]. seeds: int64 [K], or None for no dropout. BM rows by BC channels are a tile; BP
# ranges are merged at once. d is x - mean, slant weight / sqrt(var + eps), and h = fma(d, slant, bias) the same
# expression, hence the same bits, forward and backward.


@triton.jit
def _singles(scale, eps, slope):
    """As fp32, which a launch passes them as: Inductor passes fp64."""
    return tl.cast(scale, tl.float32), tl.cast(eps, tl.float32), tl.cast(slope, tl.float32)


@triton.jit
def _normalize(d, slant, bias, slope, seeds_ptr, slot, threshold, scale, rows, first, C, BC: tl.constexpr):
    h = tl.fma(d, slant[None, :], bias[None, :])
    h = tl.where(h > 0, h, h * slope)
    return drop_channels(h, seeds_ptr, slot, threshold, scale, rows, first, C, BC)


@triton.jit
def _load_norm(mean_ptr, var_ptr, weight_ptr, bias_ptr, eps, cols, C):
    """mean, 1 / sqrt(var + eps), weight / sqrt(var + eps), bias of the channels `cols`."""
    inside = cols < C
    mean = tl.load(mean_ptr + cols, mask=inside, other=0.0)
    invstd = tl.rsqrt(tl.load(var_ptr + cols, mask=inside, other=1.0) + eps)
    weight = tl.load(weight_ptr + cols, mask=inside, other=0.0).to(tl.float32)
    bias = tl.load(bias_ptr + cols, mask=inside, other=0.0).to(tl.float32)
    return mean, invstd, weight * invstd, bias


@triton.jit
def _gradient(dy, d, slant, bias, slope, seeds_ptr, slot, threshold, scale, rows, first, C, BC: tl.constexpr):
    """The gradient at h."""
    g = drop_channels(dy, seeds_ptr, slot, threshold, scale, rows, first, C, BC)
    h = tl.fma(d, slant[None, :], bias[None, :])
    return tl.where(h > 0, g, g * slope)


@triton.jit(do_not_specialize=["slot", "threshold"])
def small_forward_kernel(
    x_ptr, weight_ptr, bias_ptr, y_ptr, mean_ptr, var_ptr,
    seeds_ptr, slot, threshold, scale, eps, slope, M, C,
    BM: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    scale, eps, slope = _singles(scale, eps, slope)
    first = tl.program_id(0) * BC
    cols = first + tl.arange(0, BC)
    rows = tl.arange(0, BM)
    inside = (rows[:, None] < M) & (cols[None, :] < C)
    offsets = rows[:, None] * C + cols[None, :]
    x = tl.load(x_ptr + offsets, mask=inside, other=0.0).to(tl.float32)
    origin = tl.load(x_ptr + cols, mask=cols < C, other=0.0).to(tl.float32)
    mean = origin + tl.sum(tl.where(inside, x - origin[None, :], 0.0), 0) / M
    d = tl.where(inside, x - mean[None, :], 0.0)
    var = tl.sum(d * d, 0) / M
    tl.store(mean_ptr + cols, mean, mask=cols < C)
    tl.store(var_ptr + cols, var, mask=cols < C)
    slant = tl.load(weight_ptr + cols, mask=cols < C, other=0.0).to(tl.float32) * tl.rsqrt(var + eps)
    bias = tl.load(bias_ptr + cols, mask=cols < C, other=0.0).to(tl.float32)
    y = _normalize(d, slant, bias, slope, seeds_ptr, slot, threshold, scale, rows, first, C, BC)
    tl.store(y_ptr + offsets, y.to(y_ptr.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["slot", "threshold"])
def small_backward_kernel(
    dy_ptr, x_ptr, mean_ptr, var_ptr, weight_ptr, bias_ptr, dx_ptr, dweight_ptr, dbias_ptr,
    seeds_ptr, slot, threshold, scale, eps, slope, M, C,
    BM: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    scale, eps, slope = _singles(scale, eps, slope)
    first = tl.program_id(0) * BC
    cols = first + tl.arange(0, BC)
    rows = tl.arange(0, BM)
    inside = (rows[:, None] < M) & (cols[None, :] < C)
    offsets = rows[:, None] * C + cols[None, :]
    mean, invstd, slant, bias = _load_norm(mean_ptr, var_ptr, weight_ptr, bias_ptr, eps, cols, C)
    d = tl.load(x_ptr + offsets, mask=inside, other=0.0).to(tl.float32) - mean[None, :]
    dy = tl.load(dy_ptr + offsets, mask=inside, other=0.0).to(tl.float32)
    g = _gradient(dy, d, slant, bias, slope, seeds_ptr, slot, threshold, scale, rows, first, C, BC)
    dbias = tl.sum(g, 0)
    dweight = tl.sum(g * d, 0) * invstd
    tl.store(dbias_ptr + cols, dbias, mask=cols < C)
    tl.store(dweight_ptr + cols, dweight, mask=cols < C)
    dx = (g - (dbias / M)[None, :] - d * (invstd * dweight / M)[None, :]) * slant[None, :]
    tl.store(dx_ptr + offsets, dx.to(dx_ptr.dtype.element_ty), mask=inside)


@triton.jit
def statistics_kernel(
    x_ptr, means_ptr, squares_ptr, M, C, part_rows,
    BM: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    part = tl.program_id(0)
    cols = tl.program_id(1) * BC + tl.arange(0, BC)
    start = part * part_rows
    end = tl.minimum(start + part_rows, M)
    origin = tl.load(x_ptr + start * C + cols, mask=cols < C, other=0.0).to(tl.float32)
    sums = tl.zeros((BM, BC), tl.float32)
    squares = tl.zeros((BM, BC), tl.float32)
    for row in range(start, end, BM):
        rows = row + tl.arange(0, BM)
        inside = (rows[:, None] < end) & (cols[None, :] < C)
        x = tl.load(x_ptr + rows[:, None] * C + cols[None, :], mask=inside, other=0.0).to(tl.float32)
        d = tl.where(inside, x - origin[None, :], 0.0)
        sums += d
        squares = tl.fma(d, d, squares)
    total = tl.sum(sums, 0)
    mean = total / (end - start)
    tl.store(means_ptr + part * C + cols, origin + mean, mask=cols < C)
    about_mean = tl.sum(squares, 0) - total * mean
    about_mean = tl.where(about_mean < 0, 0.0, about_mean)  # rounding; a NaN stays
    tl.store(squares_ptr + part * C + cols, about_mean, mask=cols < C)


@triton.jit
def _merge_statistics(means_ptr, squares_ptr, cols, M, C, parts, part_rows, BP: tl.constexpr, BC: tl.constexpr):
    """mean and biased variance [BC] from those of the ranges."""
    origin = tl.load(means_ptr + cols, mask=cols < C, other=0.0)
    sums = tl.zeros((BP, BC), tl.float32)
    for first_part in range(0, parts, BP):
        part = first_part + tl.arange(0, BP)
        inside = (part[:, None] < parts) & (cols[None, :] < C)
        mean = tl.load(means_ptr + part[:, None] * C + cols[None, :], mask=inside, other=0.0)
        count = tl.minimum(M - part * part_rows, part_rows).to(tl.float32)
        sums += tl.where(inside, (mean - origin[None, :]) * count[:, None], 0.0)
    merged = origin + tl.sum(sums, 0) / M
    sums = tl.zeros((BP, BC), tl.float32)
    for first_part in range(0, parts, BP):
        part = first_part + tl.arange(0, BP)
        inside = (part[:, None] < parts) & (cols[None, :] < C)
        offsets = part[:, None] * C + cols[None, :]
        d = tl.load(means_ptr + offsets, mask=inside, other=0.0) - merged[None, :]
        count = tl.minimum(M - part * part_rows, part_rows).to(tl.float32)
        within = tl.load(squares_ptr + offsets, mask=inside, other=0.0)
        sums += tl.where(inside, within + d * d * count[:, None], 0.0)
    return merged, tl.sum(sums, 0) / M


@triton.jit
def _sum_parts(partial_ptr, cols, C, parts, BP: tl.constexpr, BC: tl.constexpr):
    sums = tl.zeros((BP, BC), tl.float32)
    for first_part in range(0, parts, BP):
        part = first_part + tl.arange(0, BP)
        inside = (part[:, None] < parts) & (cols[None, :] < C)
        sums += tl.load(partial_ptr + part[:, None] * C + cols[None, :], mask=inside, other=0.0)
    return tl.sum(sums, 0)


@triton.jit(do_not_specialize=["slot", "threshold"])
def apply_kernel(
    x_ptr, means_ptr, squares_ptr, weight_ptr, bias_ptr, y_ptr, mean_ptr, var_ptr,
    seeds_ptr, slot, threshold, scale, eps, slope, M, C, parts, part_rows,
    BM: tl.constexpr, BC: tl.constexpr, BP: tl.constexpr,
):  # fmt: skip
    scale, eps, slope = _singles(scale, eps, slope)
    part = tl.program_id(0)
    first = tl.program_id(1) * BC
    cols = first + tl.arange(0, BC)
    mean, var = _merge_statistics(means_ptr, squares_ptr, cols, M, C, parts, part_rows, BP, BC)
    if part == 0:
        tl.store(mean_ptr + cols, mean, mask=cols < C)
        tl.store(var_ptr + cols, var, mask=cols < C)
    slant = tl.load(weight_ptr + cols, mask=cols < C, other=0.0).to(tl.float32) * tl.rsqrt(var + eps)
    bias = tl.load(bias_ptr + cols, mask=cols < C, other=0.0).to(tl.float32)
    start = part * part_rows
    end = tl.minimum(start + part_rows, M)
    for back in range(0, end - start, BM):
        rows = start + (tl.cdiv(end - start, BM) - 1) * BM - back + tl.arange(0, BM)
        inside = (rows[:, None] < end) & (cols[None, :] < C)
        offsets = rows[:, None] * C + cols[None, :]
        d = tl.load(x_ptr + offsets, mask=inside, other=0.0).to(tl.float32) - mean[None, :]
        y = _normalize(d, slant, bias, slope, seeds_ptr, slot, threshold, scale, rows, first, C, BC)
        tl.store(y_ptr + offsets, y.to(y_ptr.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["slot", "threshold"])
def backward_sums_kernel(
    dy_ptr, x_ptr, mean_ptr, var_ptr, weight_ptr, bias_ptr, dweights_ptr, dbiases_ptr,
    seeds_ptr, slot, threshold, scale, eps, slope, M, C, part_rows,
    BM: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    scale, eps, slope = _singles(scale, eps, slope)
    part = tl.program_id(0)
    first = tl.program_id(1) * BC
    cols = first + tl.arange(0, BC)
    mean, invstd, slant, bias = _load_norm(mean_ptr, var_ptr, weight_ptr, bias_ptr, eps, cols, C)
    start = part * part_rows
    end = tl.minimum(start + part_rows, M)
    dbias = tl.zeros((BM, BC), tl.float32)
    dweight = tl.zeros((BM, BC), tl.float32)
    for row in range(start, end, BM):
        rows = row + tl.arange(0, BM)
        inside = (rows[:, None] < end) & (cols[None, :] < C)
        offsets = rows[:, None] * C + cols[None, :]
        d = tl.load(x_ptr + offsets, mask=inside, other=0.0).to(tl.float32) - mean[None, :]
        dy = tl.load(dy_ptr + offsets, mask=inside, other=0.0).to(tl.float32)
        g = _gradient(dy, d, slant, bias, slope, seeds_ptr, slot, threshold, scale, rows, first, C, BC)
        dbias += g
        dweight = tl.fma(g, d, dweight)
    tl.store(dbiases_ptr + part * C + cols, tl.sum(dbias, 0), mask=cols < C)
    tl.store(dweights_ptr + part * C + cols, tl.sum(dweight, 0) * invstd, mask=cols < C)


@triton.jit(do_not_specialize=["slot", "threshold"])
def backward_apply_kernel(
    dy_ptr, x_ptr, mean_ptr, var_ptr, weight_ptr, bias_ptr, dweights_ptr, dbiases_ptr, dx_ptr, dweight_ptr, dbias_ptr,
    seeds_ptr, slot, threshold, scale, eps, slope, M, C, parts, part_rows,
    BM: tl.constexpr, BC: tl.constexpr, BP: tl.constexpr,
):  # fmt: skip
    scale, eps, slope = _singles(scale, eps, slope)
    part = tl.program_id(0)
    first = tl.program_id(1) * BC
    cols = first + tl.arange(0, BC)
    mean, invstd, slant, bias = _load_norm(mean_ptr, var_ptr, weight_ptr, bias_ptr, eps, cols, C)
    dweight = _sum_parts(dweights_ptr, cols, C, parts, BP, BC)
    dbias = _sum_parts(dbiases_ptr, cols, C, parts, BP, BC)
    if part == 0:
        tl.store(dweight_ptr + cols, dweight, mask=cols < C)
        tl.store(dbias_ptr + cols, dbias, mask=cols < C)
    of_g = dbias / M
    of_d = invstd * dweight / M
    start = part * part_rows
    end = tl.minimum(start + part_rows, M)
    for back in range(0, end - start, BM):
        rows = start + (tl.cdiv(end - start, BM) - 1) * BM - back + tl.arange(0, BM)
        inside = (rows[:, None] < end) & (cols[None, :] < C)
        offsets = rows[:, None] * C + cols[None, :]
        d = tl.load(x_ptr + offsets, mask=inside, other=0.0).to(tl.float32) - mean[None, :]
        dy = tl.load(dy_ptr + offsets, mask=inside, other=0.0).to(tl.float32)
        g = _gradient(dy, d, slant, bias, slope, seeds_ptr, slot, threshold, scale, rows, first, C, BC)
        dx = (g - of_g[None, :] - d * of_d[None, :]) * slant[None, :]
        tl.store(dx_ptr + offsets, dx.to(dx_ptr.dtype.element_ty), mask=inside)


# ---------------------------------------------------------------- launchers (channels-last maps)

PARTS_AT_ONCE = 32


def small_tile(rows: int, crowded: bool) -> launch.Tile:
    """All rows of 16 channels, one sector of 16-bit data; of 8 where a backward's values or a mask's words (`crowded`)
    would not fit in the registers beside x."""
    block = max(16, triton.next_power_of_2(rows))
    channels = 8 if crowded and block > 1024 else 16
    return launch.Tile(block, channels, min(16, max(1, block * channels // 512)))


def large_split(rows: int, channels: int) -> tuple[launch.Tile, launch.RowSplit]:
    """Twice the usual rows and warps a tile: the programs are few, so each must keep many loads in flight."""
    usual = launch.tile_for(channels)
    tile = launch.Tile(2 * usual.rows, usual.channels, 2 * usual.warps)
    return tile, launch.split_rows(rows, tile.rows, triton.cdiv(channels, tile.channels), max_parts=128)


def launch_forward(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float, slope: float, threshold: int, seeds: Tensor | None, slot: int
) -> tuple[Tensor, Tensor, Tensor]:
    """(y, mean, var)."""
    check.layout("batch_norm", x=x)
    M, C = maps.rows_and_channels(x)
    mean = torch.empty(C, dtype=torch.float32, device=x.device)
    y, var = maps.empty_map(x), torch.empty_like(mean)
    dropout = (seeds if threshold else None, slot, threshold, philox.kept_scale(threshold))
    if M <= SMALL_ROWS:
        tile = small_tile(M, crowded=threshold > 0)
        wrap_triton(small_forward_kernel)[(triton.cdiv(C, tile.channels),)](
            x, weight, bias, y, mean, var, *dropout, eps, slope, M, C,
            BM=tile.rows, BC=tile.channels, num_warps=tile.warps,
        )  # fmt: skip
        return y, mean, var
    tile, split = large_split(M, C)
    grid = (split.parts, triton.cdiv(C, tile.channels))
    means, squares = mean.new_empty(split.parts, C), mean.new_empty(split.parts, C)
    wrap_triton(statistics_kernel)[grid](
        x, means, squares, M, C, split.rows, BM=tile.rows, BC=tile.channels, num_warps=tile.warps
    )
    wrap_triton(apply_kernel)[grid](
        x, means, squares, weight, bias, y, mean, var, *dropout, eps, slope, M, C, split.parts, split.rows,
        BM=tile.rows, BC=tile.channels, BP=PARTS_AT_ONCE, num_warps=tile.warps,
    )  # fmt: skip
    return y, mean, var


def launch_backward(
    dy: Tensor,
    x: Tensor,
    mean: Tensor,
    var: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    slope: float,
    threshold: int,
    seeds: Tensor | None,
    slot: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """(dx, dweight, dbias)."""
    check.layout("batch_norm", dy=dy, x=x)
    M, C = maps.rows_and_channels(x)
    dx, dweight, dbias = maps.empty_map(x), torch.empty_like(mean), torch.empty_like(mean)
    dropout = (seeds if threshold else None, slot, threshold, philox.kept_scale(threshold))
    if M <= SMALL_ROWS:
        tile = small_tile(M, crowded=True)
        wrap_triton(small_backward_kernel)[(triton.cdiv(C, tile.channels),)](
            dy, x, mean, var, weight, bias, dx, dweight, dbias, *dropout, eps, slope, M, C,
            BM=tile.rows, BC=tile.channels, num_warps=tile.warps,
        )  # fmt: skip
        return dx, dweight, dbias
    tile, split = large_split(M, C)
    grid = (split.parts, triton.cdiv(C, tile.channels))
    dweights, dbiases = mean.new_empty(split.parts, C), mean.new_empty(split.parts, C)
    wrap_triton(backward_sums_kernel)[grid](
        dy, x, mean, var, weight, bias, dweights, dbiases, *dropout, eps, slope, M, C, split.rows,
        BM=tile.rows, BC=tile.channels, num_warps=tile.warps,
    )  # fmt: skip
    wrap_triton(backward_apply_kernel)[grid](
        dy, x, mean, var, weight, bias, dweights, dbiases, dx, dweight, dbias, *dropout, eps, slope, M, C,
        split.parts, split.rows, BM=tile.rows, BC=tile.channels, BP=PARTS_AT_ONCE, num_warps=tile.warps,
    )  # fmt: skip
    return dx, dweight, dbias


# ---------------------------------------------------------------- registration


@triton_op("csrc_triton::batch_norm", mutates_args=())
def forward_op(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float, slope: float, threshold: int, seeds: Tensor | None, slot: int
) -> tuple[Tensor, Tensor, Tensor]:
    x, weight, bias = maps.channels_last(x), weight.contiguous(), bias.contiguous()
    if not launch.runs_kernels(x):
        keep = philox.keep_mask("eager", x, threshold, seeds, slot)
        forward = image_by_image if torch.compiler.is_compiling() else reference
        y, mean, var = forward(x, weight, bias, eps, slope, keep, threshold)
        return maps.fresh_map(y, x), mean, var
    return launch_forward(x, weight, bias, eps, slope, threshold, seeds, slot)


@triton_op("csrc_triton::batch_norm_backward", mutates_args=())
def backward_op(
    dy: Tensor,
    x: Tensor,
    mean: Tensor,
    var: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    slope: float,
    threshold: int,
    seeds: Tensor | None,
    slot: int,
) -> tuple[Tensor, Tensor, Tensor]:
    dy, x, weight, bias = maps.channels_last(dy), maps.channels_last(x), weight.contiguous(), bias.contiguous()
    if not launch.runs_kernels(x):
        keep = philox.keep_mask("eager", x, threshold, seeds, slot)
        dx, dweight, dbias = reference_backward(dy, x, mean, var, weight, bias, eps, slope, keep, threshold)
        return maps.fresh_map(dx, dy), dweight, dbias
    return launch_backward(dy, x, mean, var, weight, bias, eps, slope, threshold, seeds, slot)


@forward_op.register_fake
def _(x, weight, bias, eps, slope, threshold, seeds, slot):
    single = maps.arithmetic_dtype(x.dtype)
    return maps.empty_map(x), x.new_empty(x.shape[1], dtype=single), x.new_empty(x.shape[1], dtype=single)


@backward_op.register_fake
def _(dy, x, mean, var, weight, bias, eps, slope, threshold, seeds, slot):
    return maps.empty_map(x), torch.empty_like(mean), torch.empty_like(mean)


def _setup_context(ctx, inputs, output):
    x, weight, bias, *ctx.settings, seeds, ctx.slot = inputs
    _, mean, var = output
    ctx.save_for_backward(x, mean, var, weight, bias, seeds)
    ctx.mark_non_differentiable(mean, var)
    ctx.set_materialize_grads(False)


def _backward(ctx, dy, dmean, dvar):
    x, mean, var, weight, bias, seeds = ctx.saved_tensors
    dx, dweight, dbias = backward_op(dy, x, mean, var, weight, bias, *ctx.settings, seeds, ctx.slot)
    return dx, dweight.to(weight.dtype), dbias.to(bias.dtype), None, None, None, None, None


forward_op.register_autograd(_backward, setup_context=_setup_context)
backward_op.register_autograd(check.no_second_derivative("batch_norm"))

# ---------------------------------------------------------------- public


def batch_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    slope: float,
    *,
    dropout: float = 0.0,
    seeds: Tensor | None = None,
    slot: int = 0,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """(y, mean, var) as the module writes them; mean and var carry no gradient (float64 where x is).

    slope: 1 is no nonlinearity, 0 is ReLU. dropout: probability of zeroing. seeds, slot: see `csrc_triton.philox`;
    "inductor" takes torch's own generator. backend: "eager" and "triton" give the same values, mask included; "triton"
    on a CPU tensor runs the reference. ValueError for a shape (two rows at least), dtype, device, eps, slope or
    dropout it cannot take.
    """
    check.backend("batch_norm", backend)
    check.shape("batch_norm", "x", x, (None,) * 4, "[N, C, H, W]")
    check.dtype("batch_norm", "x", x, backend)
    for name, parameter in (("weight", weight), ("bias", bias)):
        check.shape("batch_norm", name, parameter, x.shape[1:2], "[C]")
        check.dtype("batch_norm", name, parameter, backend)
    if x.numel() == x.shape[1]:
        raise ValueError(f"batch_norm: x has shape {list(x.shape)}: a channel's variance needs two values at least")
    if not eps > 0.0:
        raise ValueError(f"batch_norm: eps is {eps}: more than 0 is needed")
    if not 0.0 <= slope <= 1.0:
        raise ValueError(f"batch_norm: slope is {slope}: 0 to 1 is needed")
    threshold = philox.dropout_threshold(dropout)
    check.device("batch_norm", x, weight=weight, bias=bias, seeds=seeds)
    if threshold and backend != "inductor":
        check.seeds("batch_norm", seeds, slot)
    if backend == "triton":
        return forward_op(x, weight, bias, eps, slope, threshold, seeds, slot)
    keep = philox.keep_mask(backend, x, threshold, seeds, slot)
    large = launch.runs_kernels(x) and torch.compiler.is_compiling() and x.numel() >= LARGE
    formula = about_a_row if large else reference
    return formula(x, weight, bias, eps, slope, keep, threshold)
