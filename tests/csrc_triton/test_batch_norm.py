"""batch_norm without a GPU: the reference, the registration, the errors."""

import pytest
import torch
import torch.nn.functional as F
from comparing import BF16, DTYPES, FP16, FP32, assert_close, random_map, random_vector, some_seeds
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._library.triton import get_triton_kernels_for_op
from torch.library import opcheck

from csrc_triton import philox
from csrc_triton.batch_norm import (
    SMALL_ROWS,
    backward_op,
    batch_norm,
    forward_op,
    large_split,
    small_tile,
)
from csrc_triton.batch_norm_formulas import about_a_row, image_by_image, reference_backward

SLOT, EPS = 2, 1e-4


def _parameters(channels, dtype=FP32):
    weight, bias = random_vector(channels, "cpu", mean=1.0, std=0.3), random_vector(channels, "cpu", seed=3, std=0.3)
    return weight.to(dtype).requires_grad_(), bias.to(dtype).requires_grad_()


def _float64(x, weight, bias, slope, p, dy):
    """y, mean, var, dx, dweight, dbias by the formula in float64, its derivative by autograd, the stream's mask."""
    x, weight, bias = (t.detach().double().requires_grad_() for t in (x, weight, bias))
    mean = x.mean((0, 2, 3), keepdim=True)
    var = (x - mean).square().mean((0, 2, 3), keepdim=True)
    h = (x - mean) / (var + EPS).sqrt() * weight.view(1, -1, 1, 1) + bias.view(1, -1, 1, 1)
    threshold = philox.dropout_threshold(p)
    keep = philox.channel_keep(some_seeds("cpu"), SLOT, threshold, x.shape).double()
    y = F.leaky_relu(h, slope) * keep / (1 - threshold / 65536)
    return y, mean.flatten(), var.flatten(), *torch.autograd.grad(y, (x, weight, bias), dy.double())


@pytest.mark.parametrize("backend", ["eager", "triton"])
@pytest.mark.parametrize("dtype", [*DTYPES, torch.float64], ids=str)
@pytest.mark.parametrize(("p", "mean"), [(0.0, 20.0), (0.2, 0.0)])
def test_value_and_gradients(backend, dtype, p, mean):
    if dtype == torch.float64 and backend == "triton":
        pytest.skip("the kernels take no float64")
    x = random_map((3, 20, 5, 7), dtype, "cpu", mean=mean, std=1.7).requires_grad_()
    weight, bias = _parameters(20)
    dy = random_map(x.shape, dtype, "cpu", seed=4)
    y, *statistics = batch_norm(
        x, weight, bias, EPS, 0.1, dropout=p, seeds=some_seeds("cpu"), slot=SLOT, backend=backend
    )
    got = (y, *statistics, *torch.autograd.grad(y, (x, weight, bias), dy))
    kinds = ("map", "statistic", "statistic", "map", "parameter", "parameter")
    names = ("y", "mean", "var", "dx", "dweight", "dbias")
    for name, kind, a, b in zip(names, kinds, got, _float64(x, weight, bias, 0.1, p, dy), strict=True):
        assert a.dtype == {"map": dtype, "parameter": FP32}.get(kind, torch.promote_types(dtype, FP32)), name
        if dtype == torch.float64 and kind != "parameter":  # arithmetic in float64, weight's gradient in weight's dtype
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
        assert_close(a, b, kind, FP32 if dtype == torch.float64 else dtype, name)
    assert not any(s.requires_grad for s in statistics)


@settings(max_examples=25, deadline=None)
@given(
    shape=st.tuples(*(st.integers(1, n) for n in (4, 19, 5, 5))).filter(lambda s: s[0] * s[2] * s[3] > 1),
    slope=st.sampled_from([0.0, 0.02, 1.0]),
    p=st.sampled_from([0.0, 0.2, 0.5]),
    mean=st.sampled_from([0.0, 5.0]),
    nchw=st.booleans(),
)
def test_both_backends_agree_by_value(shape, slope, p, mean, nchw):
    """Whatever the shape and memory, gradients that arrive expanded included."""
    x = random_map(shape, FP32, "cpu", mean=mean)
    x = (x.contiguous() if nchw else x).requires_grad_()
    weight, bias = _parameters(shape[1])
    results = []
    for backend in ("eager", "triton"):
        y, *statistics = batch_norm(
            x, weight, bias, EPS, slope, dropout=p, seeds=some_seeds("cpu"), slot=SLOT, backend=backend
        )
        results.append([y, *statistics, *torch.autograd.grad(y.sum() + x.sum(), (x, weight, bias))])
    names = ("y", "mean", "var", "dx", "dweight", "dbias")
    for name, eager, op in zip(names, *results, strict=True):
        # dweight is 0 but for rounding: against float64, at a mean of 5, 400 draws had up to 1.2e-6 a row
        rounding = 2.5e-6 * shape[0] * shape[2] * shape[3] if name == "dweight" else 0.0
        torch.testing.assert_close(eager, op, rtol=1e-4, atol=1e-4 + rounding)


def test_a_constant_channel_is_its_bias():
    x = torch.full((4, 3, 5, 5), 1e3)
    weight, bias = _parameters(3)
    y, mean, var = batch_norm(x, weight, bias, EPS, 1.0, backend="eager")
    # torch's own float32 sum of a thousand 1e3s is off by an ulp or two, which 1 / sqrt(eps) = 100 makes larger
    torch.testing.assert_close(mean, x[0, :, 0, 0], rtol=1e-6, atol=0)
    assert var.abs().max() < 1e-6
    torch.testing.assert_close(y, bias.view(1, -1, 1, 1).expand_as(y), rtol=0, atol=2e-2)


def test_inductor_backend_draws_from_torch():
    x, (weight, bias) = torch.randn(8, 32, 9, 9), _parameters(32)
    drop = lambda p: batch_norm(x, weight, bias, EPS, 0.1, dropout=p, backend="inductor")[0]  # noqa: E731
    torch.manual_seed(0)
    first, second = drop(0.2), drop(0.2)
    torch.manual_seed(0)
    assert torch.equal(first, drop(0.2)) and not torch.equal(first, second)
    kept = first != 0
    assert abs(kept.double().mean() - 0.8) < 0.02
    torch.testing.assert_close(first[kept], drop(0.0)[kept] / (1 - 13107 / 65536))


@pytest.mark.parametrize(
    ("shape", "memory", "dtype"),
    [
        ((2, 5, 4, 3), torch.contiguous_format, BF16),
        ((3, 16, 1, 1), torch.channels_last, FP32),
        ((2, 1, 1, 1), torch.contiguous_format, FP16),
    ],
)
@pytest.mark.parametrize(("threshold", "seeds"), [(0, None), (13107, some_seeds("cpu"))], ids=["whole", "dropped"])
def test_opcheck(shape, memory, dtype, threshold, seeds):
    x = torch.randn(shape, dtype=dtype).contiguous(memory_format=memory)
    weight, bias = _parameters(shape[1])
    last = (EPS, 0.1, threshold, seeds, SLOT)
    opcheck(forward_op, (x.clone().requires_grad_(), weight, bias, *last))
    var, mean = torch.var_mean(x.float(), (0, 2, 3), correction=0)
    opcheck(backward_op, (x[:1].expand(shape), x, mean, var, weight.detach(), bias.detach(), *last))


def test_gradcheck():
    x, (weight, bias) = torch.randn(2, 5, 3, 2, dtype=torch.float64, requires_grad=True), _parameters(5, torch.float64)

    def function(*inputs):
        return batch_norm(*inputs, EPS, 0.1, dropout=0.3, seeds=some_seeds("cpu"), slot=SLOT, backend="eager")[0]

    assert torch.autograd.gradcheck(function, (x, weight, bias))
    assert torch.autograd.gradgradcheck(function, (x, weight, bias), atol=1e-4)


def test_written_out_backward_is_the_derivative():
    """The op's formula, which the kernels follow, in float64."""
    x, dy = (torch.randn(4, 6, 3, 2, dtype=torch.float64) for _ in range(2))
    weight, bias = _parameters(6, torch.float64)
    keep = philox.channel_keep(some_seeds("cpu"), SLOT, 13107, x.shape)
    _, mean, var, *want = _float64(x, weight, bias, 0.1, 0.2, dy)
    got = reference_backward(dy, x, mean, var, weight, bias, EPS, 0.1, keep, 13107)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [*DTYPES, torch.float64], ids=str)
@pytest.mark.parametrize("shape", [(3, 20, 5, 7), (2, 1, 1, 1), (9, 6, 1, 1), (1, 5, 3, 2)], ids=str)
@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_statistics_of_images_merged(shape, dropout, dtype):
    """What a compiled step on a CPU computes; means far larger than the deviation, and different in every image."""
    of_image = 30.0 + 10.0 * torch.arange(shape[0])[:, None, None, None]
    x = random_map(shape, dtype, "cpu") + of_image.to(dtype)
    weight, bias = _parameters(shape[1], torch.promote_types(dtype, FP32))
    threshold = philox.dropout_threshold(dropout)
    keep = philox.channel_keep(some_seeds("cpu"), SLOT, threshold, shape) if dropout else None
    y, mean, var = image_by_image(x, weight, bias, EPS, 0.1, keep, threshold)
    y64, mean64, var64, *_ = _float64(x, weight, bias, 0.1, dropout, torch.zeros(shape))
    assert y.dtype == dtype
    checked = FP32 if dtype == torch.float64 else dtype
    assert_close(y, y64, "map", checked, "y")
    assert_close(mean, mean64, "statistic", checked, "mean")
    assert_close(var, var64, "statistic", checked, "var")
    if dtype == torch.float64:
        torch.testing.assert_close((y, mean, var), (y64, mean64, var64), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [*DTYPES, torch.float64], ids=str)
@pytest.mark.parametrize("shape", [(3, 20, 5, 7), (9, 6, 1, 1), (1, 5, 3, 2)], ids=str)
@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_sums_about_a_row(shape, dropout, dtype):
    """What a compiled step on a GPU computes with Inductor's kernels; a mean far larger than the deviation."""
    x = random_map(shape, dtype, "cpu", mean=30.0).requires_grad_()
    weight, bias = _parameters(shape[1], torch.promote_types(dtype, FP32))
    dy = random_map(shape, dtype, "cpu", seed=4)
    threshold = philox.dropout_threshold(dropout)
    keep = philox.channel_keep(some_seeds("cpu"), SLOT, threshold, shape) if dropout else None
    y, *statistics = about_a_row(x, weight, bias, EPS, 0.1, keep, threshold)
    got = (y, *statistics, *torch.autograd.grad(y, (x, weight, bias), dy))
    assert not any(s.requires_grad for s in statistics)
    kinds = ("map", "statistic", "statistic", "map", "parameter", "parameter")
    names = ("y", "mean", "var", "dx", "dweight", "dbias")
    for name, kind, a, b in zip(names, kinds, got, _float64(x, weight, bias, 0.1, dropout, dy), strict=True):
        if dtype == torch.float64:
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-11)
        else:
            assert_close(a, b, kind, dtype, name)


@pytest.mark.parametrize("backend", ["eager", "triton"])
def test_traced_whole(backend):
    """By AOTAutograd; test_compiled_step.py takes the ops through Inductor."""
    x, (weight, bias) = random_map((3, 20, 5, 7), FP32, "cpu").requires_grad_(), _parameters(20)

    def function(x, weight, bias, seeds):
        return batch_norm(x, weight, bias, EPS, 0.1, dropout=0.2, seeds=seeds, slot=SLOT, backend=backend)

    y, mean, var = torch.compile(function, fullgraph=True, backend="aot_eager")(x, weight, bias, some_seeds("cpu"))
    dy = random_map(x.shape, FP32, "cpu", seed=4)
    got = (y, mean, var, *torch.autograd.grad(y, (x, weight, bias), dy))
    for a, b in zip(got, _float64(x, weight, bias, 0.1, 0.2, dy), strict=True):
        assert_close(a, b, "map", FP32, backend)


def test_second_derivative_raises():
    x, (weight, bias) = torch.randn(2, 3, 4, 4, requires_grad=True), _parameters(3)
    y, _, _ = batch_norm(x, weight, bias, EPS, 0.1, backend="triton")
    (dx,) = torch.autograd.grad(y.pow(2).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="batch_norm: the kernel has no second derivative"):
        torch.autograd.grad(dx.sum(), x)


def test_torch_knows_the_kernels():
    assert len(get_triton_kernels_for_op("csrc_triton::batch_norm")) == 3
    assert len(get_triton_kernels_for_op("csrc_triton::batch_norm_backward")) == 3


@given(st.integers(2, SMALL_ROWS), st.booleans())
def test_a_small_tile_holds_all_rows_and_whole_philox_groups(rows, crowded):
    tile = small_tile(rows, crowded)
    assert tile.rows >= rows and tile.channels % 8 == 0 and tile.warps <= 16
    assert tile.rows * tile.channels <= 32 * tile.warps * (32 if crowded else 64), "elements a thread"


@given(st.integers(SMALL_ROWS + 1, 10**6), st.integers(1, 2000))
def test_ranges_of_large_maps(rows, channels):
    tile, split = large_split(rows, channels)
    assert split.rows % tile.rows == 0 and split.parts <= 128
    assert (split.parts - 1) * split.rows < rows <= split.parts * split.rows


X, W, SEEDS = torch.zeros(2, 3, 4, 4), torch.zeros(3), torch.zeros(4, dtype=torch.int64)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(x=X[0]), r"x has shape \[3, 4, 4\]: \[N, C, H, W\] is needed"),
        (dict(x=X[:0]), "1 to 2"),
        (dict(x=X[:1, :, :1, :1]), r"x has shape \[1, 3, 1, 1\]: a channel's variance needs two values at least"),
        (dict(x=X.double()), "x is torch.float64: backend 'triton' takes float32, float16, bfloat16"),
        (dict(x=X.long(), backend="eager"), "x is torch.int64"),
        (dict(weight=torch.zeros(4)), r"weight has shape \[4\]: \[C\] = \[3\] is needed"),
        (dict(bias=torch.zeros(3, 1)), r"bias has shape \[3, 1\]: \[C\] = \[3\] is needed"),
        (dict(weight=W.double()), "weight is torch.float64"),
        (dict(bias=torch.zeros(3, device="meta")), "bias is on meta: the data is on cpu"),
        (dict(eps=0.0), "eps is 0.0"),
        (dict(eps=float("nan")), "eps is nan"),
        (dict(slope=1.1), "slope is 1.1"),
        (dict(dropout=1.0), "dropout is 1.0"),
        (dict(dropout=0.5, seeds=None), "seeds is None"),
        (dict(dropout=0.5, slot=4), "slot is 4: seeds has 4"),
        (dict(backend="cuda"), "backend is 'cuda': one of eager, inductor, triton"),
    ],
)
def test_errors_name_what_is_wrong(arguments, message):
    good = dict(x=X, weight=W, bias=W, eps=EPS, slope=0.1, dropout=0.0, seeds=SEEDS, slot=0, backend="triton")
    with pytest.raises(ValueError, match=message):
        batch_norm(**good | arguments)
