"""maxout without a GPU: the reference, the registration, the errors."""

from functools import partial

import pytest
import torch
from check_maxout import formula64, random_data
from comparing import BF16, DTYPES, FP16, FP32, assert_close, some_seeds
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._library.triton import get_triton_kernels_for_op
from torch.library import opcheck

from csrc_triton import launch, philox
from csrc_triton.maxout import backward_op, forward_op, maxout
from csrc_triton.maxout_formulas import coded, reference
from csrc_triton.stored import teach_inductor

SLOT = 2


def _gradients(y, x, bias, dy):
    inputs = [x] if bias is None else [x, bias]
    return torch.autograd.grad(y, inputs, dy)


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    monkeypatch.setattr(launch, "runs_kernels", lambda x: True)


@pytest.mark.usefixtures("as_on_a_gpu")
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-14), (torch.float32, 1e-6), (torch.bfloat16, 8e-3)])
@pytest.mark.parametrize(
    ("p", "order", "kind"), [(0.0, "after", None), (0.5, "after", "tied"), (0.2, "before", "untied")]
)
@pytest.mark.parametrize("compiled", [False, True])
def test_a_byte_an_output_is_enough_for_the_gradients(compiled, p, order, kind, dtype, bound):
    """Of what Inductor compiles for a GPU, against autograd in float64; ties included.

    torch 2.11 compiled them as zeros where the forward ended in a cast to the dtype that it had.
    """
    x, bias, dy = random_data((3, 20, 5, 7), kind, dtype, "cpu")
    x = x.detach()
    x[0, 4:6] = 0.5
    if bias is not None:
        bias = bias.detach().to(torch.promote_types(dtype, torch.float32))
        bias = bias.index_fill(0, torch.tensor([4, 5]), 0.0).requires_grad_()
    x, seeds = x.requires_grad_(), some_seeds("cpu")
    more = {"dropout": p, "order": order, "slot": SLOT}
    keep = philox.keep_mask("eager", x if order == "before" else x[:, ::2], philox.dropout_threshold(p), seeds, SLOT)

    def step():
        y = coded(x, bias, keep, philox.dropout_threshold(p), order == "before")
        return y.detach(), *_gradients(y, x, bias, dy)

    exact = [t if t is None else t.detach().double().requires_grad_() for t in (x, bias)]
    y = maxout(*exact, seeds=seeds, backend="eager", **more)
    expected = [y.detach(), *_gradients(y, *exact, dy.double())]
    if compiled:
        teach_inductor()
        torch._dynamo.reset()  # else nine forms are too many of one line
        step = torch._dynamo.config.patch(trace_autograd_ops=True)(torch.compile(step, fullgraph=True))
    for ours, theirs in zip(step(), expected, strict=True):
        assert (ours.double() - theirs).norm() < bound * theirs.norm()


@pytest.mark.usefixtures("as_on_a_gpu")
def test_a_nan_wins_by_a_byte_an_output_too():
    x, bias, dy = random_data((3, 20, 5, 7), "tied", torch.float64, "cpu")
    x, bias = x.detach(), bias.detach().requires_grad_()
    x[1, 3, 2, 2] = torch.nan
    results = []
    for function in (coded, reference):
        y = function(x.requires_grad_(), bias, None, 0, False)
        results.append((y, *_gradients(y, x, bias, dy)))
    torch.testing.assert_close(*results, rtol=1e-12, atol=1e-12, equal_nan=True)


@pytest.mark.usefixtures("as_on_a_gpu")
@pytest.mark.parametrize("backend", ["eager", "inductor"])
def test_what_is_compiled_for_a_gpu_takes_a_byte_an_output(backend, monkeypatch):
    monkeypatch.setattr("csrc_triton.maxout.coded", lambda x, *rest: 2 * reference(x, *rest))
    x, bias, _ = random_data((3, 20, 5, 7), "tied", torch.float32, "cpu")
    function = partial(maxout, backend=backend)
    assert torch.equal(torch.compile(function, backend="eager", fullgraph=True)(x, bias), 2 * function(x, bias))


@pytest.mark.parametrize("backend", ["eager", "triton"])
@pytest.mark.parametrize("dtype", [*DTYPES, torch.float64], ids=str)
@pytest.mark.parametrize(
    ("p", "order", "kind"),
    [
        (0.0, "after", "tied"),
        (0.5, "after", "tied"),
        (0.2, "before", "tied"),
        (0.5, "after", "untied"),
        (0.2, "after", None),
    ],
)
def test_value_and_gradients(backend, dtype, p, order, kind):
    if dtype == torch.float64 and backend == "triton":
        pytest.skip("the kernels take no float64")
    x, bias, dy = random_data((3, 20, 5, 7), kind, dtype, "cpu")
    x.requires_grad_()
    bias = bias if bias is None else bias.requires_grad_()
    y = maxout(x, bias, dropout=p, order=order, seeds=some_seeds("cpu"), slot=SLOT, backend=backend)
    dx, *db = _gradients(y, x, bias, dy)

    threshold = philox.dropout_threshold(p)
    mask = (3, 20 if order == "before" else 10, 5, 7)
    keep = philox.channel_keep(some_seeds("cpu"), SLOT, threshold, mask).double()
    scale = 1 / (1 - threshold / 65536)
    y64, _, dx64 = formula64(x.detach(), None if bias is None else bias.detach(), keep, scale, order, dy)
    checked = FP32 if dtype == torch.float64 else dtype
    assert y.dtype == dx.dtype == dtype
    if dtype == torch.float64:
        torch.testing.assert_close((y, dx), (y64, dx64), rtol=1e-12, atol=1e-12)
    assert_close(y, y64, "maxout", checked, "y")
    assert_close(dx, dx64, "maxout", checked, "dx")
    if kind == "tied":
        assert_close(db[0], dx64.sum((0, 2, 3)), "parameter", checked, "dbias")
    elif kind == "untied":  # the op sums dx in the data type
        assert_close(db[0], dx64.sum(0), "maxout" if dtype in (BF16, FP16) else "parameter", checked, "dbias")


@settings(max_examples=25, deadline=None)
@given(
    shape=st.tuples(*(st.integers(1, n) for n in (4, 11, 5, 5))),
    p=st.sampled_from([0.0, 0.2, 0.5]),
    order=st.sampled_from(["after", "before"]),
    kind=st.sampled_from(["tied", "untied", None]),
    nchw=st.booleans(),
)
def test_both_backends_agree_by_value(shape, p, order, kind, nchw):
    """Whatever the shape and memory, gradients that arrive expanded included; ties too."""
    n, c, height, width = shape
    x, bias, _ = random_data((n, 2 * c, height, width), kind, FP32, "cpu")
    x = (x.contiguous() if nchw else x).requires_grad_()
    bias = bias if bias is None else bias.requires_grad_()
    inputs, results = [x] if bias is None else [x, bias], []
    for backend in ("eager", "triton"):
        y = maxout(x, bias, dropout=p, order=order, seeds=some_seeds("cpu"), slot=SLOT, backend=backend)
        results.append([y, *torch.autograd.grad(y.sum() + x.sum(), inputs)])
    for eager, op in zip(*results, strict=True):
        torch.testing.assert_close(eager, op, rtol=1e-5, atol=1e-5)


NAN = float("nan")
PAIRS = torch.tensor([[1.0, 1.0], [NAN, 2.0], [2.0, NAN], [NAN, NAN], [-1.0, -2.0]])


def _hold_ties_and_nan(function, halves):
    x = (PAIRS.T if halves else PAIRS).reshape(1, 10, 1, 1).requires_grad_()
    y = function(x, halves=halves)
    assert y.flatten().isnan().tolist() == [False, True, True, True, False]
    (dx,) = torch.autograd.grad(y.sum(), x)
    dx = dx.reshape(2, 5).T.flatten() if halves else dx.flatten()
    assert dx.tolist() == [1, 0, 1, 0, 0, 1, 0, 1, 1, 0]


@pytest.mark.parametrize("backend", ["eager", "triton"])
@pytest.mark.parametrize("halves", [False, True])
def test_ties_and_nan(backend, halves):
    _hold_ties_and_nan(partial(maxout, backend=backend), halves)


def test_ties_and_nan_as_inductor_compiles_them():
    _hold_ties_and_nan(torch.compile(partial(maxout, backend="triton"), fullgraph=True), True)


@pytest.mark.parametrize("backend", ["eager", "triton"])
@pytest.mark.parametrize("p", [0.0, 0.5])
@pytest.mark.parametrize("order", ["after", "before"])
@pytest.mark.parametrize("kind", ["tied", "untied", None])
def test_halves_are_the_same_channels_in_another_order(backend, p, order, kind):
    """Bit for bit, the mask included, but for the sums of gradients."""
    x, bias, dy = random_data((3, 20, 5, 7), kind, FP32, "cpu")
    random = dict(dropout=p, order=order, seeds=some_seeds("cpu"), slot=SLOT)

    def value_and_gradients(x, bias, halves):
        inputs = [t.requires_grad_() for t in (x, bias) if t is not None]
        y = maxout(*inputs, halves=halves, backend=backend, **random)
        return y, *torch.autograd.grad(y, inputs, dy)

    in_halves = _in_halves(x, 1), None if bias is None else _in_halves(bias, 0)
    y, dx, *db = value_and_gradients(x, bias, False)
    y_halves, dx_halves, *db_halves = value_and_gradients(*in_halves, True)
    assert torch.equal(y_halves, y) and torch.equal(dx_halves, _in_halves(dx, 1))
    torch.testing.assert_close(db_halves, [_in_halves(t, 0) for t in db], rtol=1e-6, atol=1e-6)


def _in_halves(t, dim):
    return torch.cat(t.detach().unflatten(dim, (-1, 2)).unbind(dim + 1), dim)


def test_kernels_take_no_halves(monkeypatch):
    monkeypatch.setattr(launch, "runs_kernels", lambda x: True)
    with pytest.raises(ValueError, match="maxout: halves on a GPU: its kernels take adjacent channels"):
        maxout(torch.zeros(2, 6, 4, 4), halves=True, backend="triton")


def test_inductor_backend_draws_from_torch():
    x, bias = torch.randn(8, 64, 9, 9), torch.randn(64)
    for order in ("after", "before"):
        drop = lambda p, order=order: maxout(x, bias, dropout=p, order=order, backend="inductor")  # noqa: E731
        torch.manual_seed(0)
        first, second = drop(0.2), drop(0.2)
        torch.manual_seed(0)
        assert torch.equal(first, drop(0.2)) and not torch.equal(first, second)
        dropped = (first == 0).double().mean()
        assert abs(dropped - (0.2 if order == "after" else (first == 0).double().mean())) < 0.02
        if order == "after":
            torch.testing.assert_close(first[first != 0], drop(0.0)[first != 0] / (1 - 13107 / 65536))


def test_dropout_before_the_maximum_competes_as_zero():
    """Of two negative channels with one dropped, the zero wins, and nothing flows back."""
    x = torch.full((4, 64, 6, 6), -1.0, requires_grad=True)
    y = maxout(x, dropout=0.5, order="before", seeds=some_seeds("cpu"), slot=SLOT, backend="eager")
    assert set(y.flatten().tolist()) == {0.0, -2.0}
    assert abs((y == -2.0).double().mean() - 0.25) < 0.03, "both kept"
    (dx,) = torch.autograd.grad(y.sum(), x)
    assert torch.equal(dx[:, ::2] + dx[:, 1::2], 2.0 * (y == -2.0))


@pytest.mark.parametrize(
    ("shape", "memory", "dtype"),
    [
        ((2, 10, 4, 3), torch.contiguous_format, BF16),
        ((3, 16, 1, 1), torch.channels_last, FP32),
        ((1, 2, 1, 1), torch.contiguous_format, FP16),
    ],
)
@pytest.mark.parametrize("kind", ["tied", "untied"])
def test_opcheck(shape, memory, dtype, kind):
    x, bias, dy = random_data(shape, kind, dtype, "cpu")
    x = x.contiguous(memory_format=memory)
    for before, threshold, seeds in ((False, 0, None), (True, 13107, some_seeds("cpu"))):
        leaves = (x.clone().requires_grad_(), bias.clone().requires_grad_())
        opcheck(forward_op, (*leaves, threshold, before, seeds, SLOT, before))
    code = torch.full(dy.shape, 3, dtype=torch.uint8)
    opcheck(backward_op, (dy[:1].expand(dy.shape), code, 13107, kind == "tied", kind == "untied"))


def test_gradcheck():
    x, bias = torch.randn(2, 6, 3, 2, dtype=torch.float64), torch.randn(6, dtype=torch.float64)
    for order, halves in (("after", True), ("before", False), ("before", True)):

        def function(x, bias, order=order, halves=halves):
            return maxout(
                x, bias, dropout=0.3, order=order, halves=halves, seeds=some_seeds("cpu"), slot=SLOT, backend="eager"
            )

        assert torch.autograd.gradcheck(function, (x.requires_grad_(), bias.requires_grad_()))


@pytest.mark.parametrize("backend", ["eager", "triton"])
@pytest.mark.parametrize("order", ["after", "before"])
def test_traced_whole(backend, order):
    """By AOTAutograd; test_compiled_step.py takes the ops through Inductor."""
    x, bias, dy = random_data((3, 20, 5, 7), "tied", FP32, "cpu")
    x.requires_grad_(), bias.requires_grad_()

    def function(x, bias, seeds):
        return maxout(x, bias, dropout=0.2, order=order, seeds=seeds, slot=SLOT, backend=backend)

    want = function(x, bias, some_seeds("cpu"))
    got = torch.compile(function, fullgraph=True, backend="aot_eager")(x, bias, some_seeds("cpu"))
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(_gradients(got, x, bias, dy), _gradients(want, x, bias, dy))


def test_second_derivative_raises():
    x = torch.randn(2, 4, 4, 4, requires_grad=True)
    (dx,) = torch.autograd.grad(maxout(x, backend="triton").pow(2).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="maxout: the kernel has no second derivative"):
        torch.autograd.grad(dx.sum(), x)


def test_torch_knows_the_kernels():
    for name in ("maxout", "maxout_backward"):
        assert len(get_triton_kernels_for_op(f"csrc_triton::{name}")) == 1


X, BIAS, SEEDS = torch.zeros(2, 6, 4, 4), torch.zeros(6), torch.zeros(4, dtype=torch.int64)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(x=X[0]), r"x has shape \[6, 4, 4\]: \[N, 2C, H, W\] is needed"),
        (dict(x=X[:, :5]), r"x has shape \[2, 5, 4, 4\]: an even number of channels is needed"),
        (dict(x=X[:0]), r"x has shape \[0, 6, 4, 4\]: 1 to 2"),
        (dict(x=X.double()), "x is torch.float64: backend 'triton' takes float32, float16, bfloat16"),
        (dict(bias=torch.zeros(3)), r"bias has shape \[3\]: \[2C\] = \[6\] is needed"),
        (dict(bias=torch.zeros(6, 4)), r"bias has shape \[6, 4\]: \[2C\] or \[2C, H, W\]"),
        (dict(bias=torch.zeros(6, 4, 5)), r"bias has shape \[6, 4, 5\]: \[2C\] or \[2C, H, W\]"),
        (dict(bias=BIAS.long()), "bias is torch.int64"),
        (dict(bias=torch.zeros(6, device="meta")), "bias is on meta: the data is on cpu"),
        (dict(order="during"), "order is 'during': one of after, before"),
        (dict(dropout=1.0), "dropout is 1.0"),
        (dict(dropout=0.5, seeds=None), "seeds is None"),
        (dict(dropout=0.5, slot=4), "slot is 4: seeds has 4"),
        (dict(backend="cuda"), "backend is 'cuda': one of eager, inductor, triton"),
    ],
)
def test_errors_name_what_is_wrong(arguments, message):
    good = dict(x=X, bias=BIAS, dropout=0.0, order="after", seeds=SEEDS, slot=0, backend="triton")
    with pytest.raises(ValueError, match=message):
        maxout(**good | arguments)
