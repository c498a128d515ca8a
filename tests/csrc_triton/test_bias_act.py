"""bias_act without a GPU: the reference, the registration, the errors."""

import pytest
import torch
import torch.nn.functional as F
from comparing import BF16, DTYPES, FP16, FP32, assert_close, random_map, random_vector, some_seeds
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.library import opcheck

from csrc_triton import philox
from csrc_triton.bias_act import backward_op, bias_act, forward_op

SLOT = 1


def _float64(x, bias, slope, p, dy):
    """y, dx, db by plain PyTorch in float64 and the stream's mask."""
    x, bias = x.detach().double().requires_grad_(), bias.detach().double().requires_grad_()
    threshold = philox.dropout_threshold(p)
    keep = philox.channel_keep(some_seeds(x.device), SLOT, threshold, x.shape).double()
    y = F.leaky_relu(x + bias.view(1, -1, 1, 1), slope) * keep / (1 - threshold / 65536)
    return y, *torch.autograd.grad(y, (x, bias), dy.double())


@pytest.mark.parametrize("backend", ["eager", "triton"])
@pytest.mark.parametrize("dtype", [*DTYPES, torch.float64], ids=str)
@pytest.mark.parametrize("p", [0.0, 0.2])
def test_value_and_gradients(backend, dtype, p):
    if dtype == torch.float64 and backend == "triton":
        pytest.skip("the kernels take no float64")
    x, bias = random_map((3, 20, 5, 7), dtype, "cpu").requires_grad_(), random_vector(20, "cpu").requires_grad_()
    dy = random_map(x.shape, dtype, "cpu", seed=3)
    y = bias_act(x, bias, 0.1, dropout=p, seeds=some_seeds("cpu"), slot=SLOT, backend=backend)
    dx, db = torch.autograd.grad(y, (x, bias), dy)
    y64, dx64, db64 = _float64(x, bias, 0.1, p, dy)
    checked = FP32 if dtype == torch.float64 else dtype
    assert y.dtype == dx.dtype == dtype and db.dtype == bias.dtype
    assert_close(y, y64, "map", checked, "y")
    assert_close(dx, dx64, "map", checked, "dx")
    assert_close(db, db64, "parameter", FP32, "db")


@settings(max_examples=25, deadline=None)
@given(
    shape=st.tuples(*(st.integers(1, n) for n in (4, 19, 5, 5))),
    slope=st.sampled_from([0.0, 0.02, 1.0]),
    p=st.sampled_from([0.0, 0.2, 0.5]),
    with_bias=st.booleans(),
    nchw=st.booleans(),
)
def test_both_backends_agree_by_value(shape, slope, p, with_bias, nchw):
    """Whatever the shape and memory, gradients that arrive expanded included."""
    x = random_map(shape, FP32, "cpu")
    x = (x.contiguous() if nchw else x).requires_grad_()
    bias = random_vector(shape[1], "cpu").requires_grad_() if with_bias else None
    inputs = [x, bias] if with_bias else [x]
    results = []
    for backend in ("eager", "triton"):
        y = bias_act(x, bias, slope, dropout=p, seeds=some_seeds("cpu"), slot=SLOT, backend=backend)
        results.append([y, *torch.autograd.grad(y.sum() + x.sum(), inputs, allow_unused=True)])
    for eager, op in zip(*results, strict=True):
        torch.testing.assert_close(eager, op, rtol=1e-5, atol=1e-5)


def test_dropout_alone_is_the_mask():
    x = torch.ones(4, 24, 6, 6)
    y = bias_act(x, dropout=0.25, seeds=some_seeds("cpu"), slot=SLOT, backend="eager")
    keep = philox.channel_keep(some_seeds("cpu"), SLOT, 16384, x.shape)
    assert torch.equal(y, keep * (4 / 3)) and 0.6 < keep.double().mean() < 0.9


def test_inductor_backend_draws_from_torch():
    x, bias = torch.randn(8, 32, 9, 9), torch.randn(32)
    torch.manual_seed(0)
    first = bias_act(x, bias, 0.1, dropout=0.2, backend="inductor")
    second = bias_act(x, bias, 0.1, dropout=0.2, backend="inductor")
    torch.manual_seed(0)
    assert torch.equal(first, bias_act(x, bias, 0.1, dropout=0.2, backend="inductor"))
    assert not torch.equal(first, second)
    whole = F.leaky_relu(x + bias.view(1, -1, 1, 1), 0.1) / (1 - 13107 / 65536)
    kept = first != 0
    assert abs(kept.double().mean() - 0.8) < 0.02
    torch.testing.assert_close(first[kept], whole[kept])


def test_nothing_to_do_is_the_input_itself():
    x = torch.randn(2, 3, 4, 5)
    assert bias_act(x, backend="triton") is x


@pytest.mark.parametrize(
    ("shape", "memory", "dtype"),
    [
        ((2, 5, 4, 3), torch.contiguous_format, BF16),
        ((3, 16, 1, 1), torch.channels_last, FP32),
        ((1, 1, 1, 1), torch.contiguous_format, FP16),
    ],
)
def test_opcheck(shape, memory, dtype):
    x = torch.randn(shape, dtype=dtype).contiguous(memory_format=memory)
    bias = torch.randn(shape[1])
    opcheck(forward_op, (x.clone().requires_grad_(), bias.clone().requires_grad_(), 0.1, 0, None, 0))
    opcheck(forward_op, (x, None, 1.0, 0, None, 0))
    opcheck(backward_op, (x, x, 0.1, 0, None, 0, True))
    opcheck(backward_op, (x[:1].expand(shape), None, 1.0, 0, None, 0, False))


def test_opcheck_with_dropout():
    x, seeds = torch.randn(2, 5, 4, 3), some_seeds("cpu")
    opcheck(forward_op, (x.clone().requires_grad_(), None, 1.0, 13107, seeds, SLOT))
    opcheck(backward_op, (x, x, 0.1, 13107, seeds, SLOT, True))


def test_gradcheck():
    x, bias = torch.randn(2, 5, 3, 2, dtype=torch.float64), torch.randn(5, dtype=torch.float64)
    function = lambda x, b: bias_act(x, b, 0.1, dropout=0.3, seeds=some_seeds("cpu"), slot=SLOT, backend="eager")  # noqa: E731
    assert torch.autograd.gradcheck(function, (x.requires_grad_(), bias.requires_grad_()))


@pytest.mark.parametrize("backend", ["eager", "triton"])
def test_traced_whole(backend):
    """By AOTAutograd; test_compiled_step.py takes the ops through Inductor."""
    x, bias = random_map((3, 20, 5, 7), FP32, "cpu").requires_grad_(), random_vector(20, "cpu").requires_grad_()

    def function(x, bias, seeds):
        return bias_act(x, bias, 0.1, dropout=0.2, seeds=seeds, slot=SLOT, backend=backend)

    y = torch.compile(function, fullgraph=True, backend="aot_eager")(x, bias, some_seeds("cpu"))
    dy = random_map(x.shape, FP32, "cpu", seed=3)
    for got, want in zip((y, *torch.autograd.grad(y, (x, bias), dy)), _float64(x, bias, 0.1, 0.2, dy), strict=True):
        assert_close(got, want, "map", FP32, backend)


def test_second_derivative_raises():
    x = torch.randn(2, 3, 4, 4, requires_grad=True)
    (dx,) = torch.autograd.grad(bias_act(x, None, 0.1, backend="triton").pow(2).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="bias_act: the kernel has no second derivative"):
        torch.autograd.grad(dx.sum(), x)


X, BIAS, SEEDS = torch.zeros(2, 3, 4, 4), torch.zeros(3), torch.zeros(4, dtype=torch.int64)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(x=X[0]), r"x has shape \[3, 4, 4\]: \[N, C, H, W\] is needed"),
        (dict(x=X[:0]), "1 to 2"),
        (dict(x=X.double()), "x is torch.float64: backend 'triton' takes float32, float16, bfloat16"),
        (dict(x=X.long(), backend="eager"), "x is torch.int64"),
        (dict(bias=torch.zeros(4)), r"bias has shape \[4\]: \[C\] = \[3\] is needed"),
        (dict(bias=torch.zeros(3).double()), "bias is torch.float64: backend 'triton' takes"),
        (dict(bias=torch.zeros(3, device="meta")), "bias is on meta: the data is on cpu"),
        (dict(slope=-0.1), "slope is -0.1"),
        (dict(dropout=1.0), "dropout is 1.0"),
        (dict(dropout=0.5, seeds=None), "seeds is None"),
        (dict(dropout=0.5, seeds=SEEDS.int()), r"seeds is torch.int32 \[4\], strides \[1\]: int64 \[K\] is needed"),
        (dict(dropout=0.5, seeds=SEEDS[::2]), r"strides \[2\]: int64 \[K\] is needed, contiguous"),
        (dict(dropout=0.5, slot=4), "slot is 4: seeds has 4"),
        (dict(backend="cuda"), "backend is 'cuda': one of eager, inductor, triton"),
    ],
)
def test_errors_name_what_is_wrong(arguments, message):
    good = dict(x=X, bias=BIAS, slope=0.1, dropout=0.0, seeds=SEEDS, slot=0, backend="triton")
    with pytest.raises(ValueError, match=message):
        bias_act(**good | arguments)


@pytest.mark.parametrize("dtype", [FP16, BF16])
def test_no_nonfinite_where_an_infinity_is_dropped(dtype):
    """A dropped element is 0 whatever it was."""
    x = torch.full((2, 16, 4, 4), float("inf"), dtype=dtype)
    y = bias_act(x, dropout=0.5, seeds=some_seeds("cpu"), slot=SLOT, backend="triton")
    assert set(y.flatten().tolist()) == {0.0, float("inf")}
