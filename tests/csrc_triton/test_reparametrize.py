"""reparametrize without a GPU: the reference, the registration, the errors."""

import math

import pytest
import torch
from comparing import BF16, DTYPES, FP32, assert_close, random_map, some_seeds
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.library import opcheck

from csrc_triton import philox
from csrc_triton.reparametrize import backward_op, forward_op, noise, reparametrize

SLOT = 2


def _inputs(n, units, dtype):
    params = random_map((n, 2 * units, 1, 1), dtype, "cpu").requires_grad_()
    return params, random_map((n, units, 1, 1), dtype, "cpu", seed=1), random_map((2 * n, units, 1, 1), dtype, "cpu")


@pytest.mark.parametrize("backend", ["eager", "triton"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("p", [0.0, 0.2])
def test_value_and_gradient(backend, dtype, p):
    params, z, g = _inputs(20, 12, dtype)
    joint = reparametrize(params, z, dropout=p, seeds=some_seeds("cpu"), slot=SLOT, backend=backend)
    (dparams,) = torch.autograd.grad(joint, params, g)

    threshold = philox.dropout_threshold(p)
    eps, keep = noise(z, some_seeds("cpu"), SLOT, threshold)
    params64 = params.detach().double().requires_grad_()
    mu, log_sigma = params64.chunk(2, dim=1)
    joint64 = torch.cat([mu + torch.exp(log_sigma) * eps.double(), z.double()])
    joint64 = joint64 * (1 if keep is None else keep.double() / (1 - threshold / 65536))
    assert joint.dtype == dparams.dtype == dtype
    assert_close(joint, joint64, "map", dtype, "z_joint")
    assert_close(dparams, torch.autograd.grad(joint64, params64, g.double())[0], "map", dtype, "dparams")


@settings(max_examples=25, deadline=None)
@given(n=st.integers(1, 7), units=st.integers(1, 19), p=st.sampled_from([0.0, 0.5]), sliced=st.booleans())
def test_both_backends_agree_by_value(n, units, p, sliced):
    params, z, g = _inputs(n, units, FP32)
    if sliced:  # strides that are no rows
        params = random_map((n, 4 * units, 1, 1), FP32, "cpu")[:, ::2].detach().requires_grad_()
        z = random_map((2 * n, units, 1, 1), FP32, "cpu")[::2]
    results = []
    for backend in ("eager", "triton"):
        joint = reparametrize(params, z, dropout=p, seeds=some_seeds("cpu"), slot=SLOT, backend=backend)
        results.append((joint, torch.autograd.grad(joint, params, g)[0]))
    for eager, op in zip(*results, strict=True):
        torch.testing.assert_close(eager, op, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("backend", ["eager", "inductor", "triton"])
def test_distribution(backend):
    """z_hat ~ N(mu, sigma^2) whatever draws it, new with every seed; z passes."""
    torch.manual_seed(0)
    n, units = 4000, 8
    mu, log_sigma = torch.linspace(-2, 2, units), torch.linspace(-1, 1, units)
    params = torch.cat([mu, log_sigma]).expand(n, 2 * units)[:, :, None, None]
    z = torch.randn(n, units, 1, 1)
    joint = reparametrize(params, z, seeds=some_seeds("cpu"), slot=SLOT, backend=backend)
    z_hat = joint[:n, :, 0, 0]
    assert torch.equal(joint[n:], z)
    assert ((z_hat.mean(0) - mu).abs() < 5 * log_sigma.exp() / math.sqrt(n)).all()
    assert ((z_hat.var(0) / torch.exp(2 * log_sigma) - 1).abs() < 5 * math.sqrt(2 / n)).all()
    again = reparametrize(params, z, seeds=some_seeds("cpu") + 1, slot=SLOT, backend=backend)
    assert not torch.equal(joint, again)


def test_inductor_backend_drops_at_the_rate():
    torch.manual_seed(0)
    params, z = torch.zeros(500, 40, 1, 1), torch.ones(500, 20, 1, 1)
    joint = reparametrize(params, z, dropout=0.25, backend="inductor")
    assert abs((joint[:500] != 0).double().mean() - 0.75) < 0.03
    assert abs((joint[500:] != 0).double().mean() - 0.75) < 0.03
    assert set(joint[500:].flatten().tolist()) == {0.0, torch.tensor(4 / 3).item()}


def test_the_prior_sample_gets_no_gradient():
    params, z, _ = _inputs(3, 4, FP32)
    for backend in ("eager", "inductor", "triton"):
        z = z.detach().requires_grad_()
        joint = reparametrize(params, z, seeds=some_seeds("cpu"), backend=backend)
        assert torch.autograd.grad(joint.sum(), z, allow_unused=True) == (None,)


@pytest.mark.parametrize(("n", "units", "dtype"), [(3, 4, FP32), (1, 1, BF16)])
def test_opcheck(n, units, dtype):
    params, z, g = _inputs(n, units, dtype)
    opcheck(forward_op, (params, z, 0, some_seeds("cpu"), SLOT))
    opcheck(backward_op, (g[:, :1].expand(g.shape), params.detach(), 13107, some_seeds("cpu"), SLOT))


def test_gradcheck():
    params, z, _ = _inputs(3, 4, torch.float64)
    function = lambda p: reparametrize(p, z, dropout=0.3, seeds=some_seeds("cpu"), slot=SLOT, backend="eager")  # noqa: E731
    assert torch.autograd.gradcheck(function, params)


def test_second_derivative_raises():
    params, z, _ = _inputs(3, 4, FP32)
    joint = reparametrize(params, z, seeds=some_seeds("cpu"), backend="triton")
    (dparams,) = torch.autograd.grad(joint.pow(2).sum(), params, create_graph=True)
    with pytest.raises(RuntimeError, match="reparametrize: the kernel has no second derivative"):
        torch.autograd.grad(dparams.sum(), params)


PARAMS, Z = torch.zeros(2, 6, 1, 1), torch.zeros(2, 3, 1, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(params=torch.zeros(2, 5, 1, 1)), r"params has shape \[2, 5, 1, 1\]: \[N, 2L, 1, 1\] = \[2, 6, 1, 1\]"),
        (dict(z=torch.zeros(2, 3)), r"z has shape \[2, 3\]: \[N, L, 1, 1\]"),
        (dict(z=Z.half()), "z is torch.float16: torch.float32 is needed, as params"),
        (dict(params=PARAMS.double(), z=Z.double()), "params is torch.float64"),
        (dict(z=Z.to("meta")), "z is on meta: the data is on cpu"),
        (dict(seeds=None), "seeds is None"),
        (dict(slot=-1), "slot is -1"),
        (dict(dropout=-0.5), "dropout is -0.5"),
        (dict(backend="fast"), "backend is 'fast'"),
    ],
)
def test_errors_name_what_is_wrong(arguments, message):
    good = dict(params=PARAMS, z=Z, seeds=some_seeds("cpu"), slot=0, backend="triton")
    with pytest.raises(ValueError, match=message):
        reparametrize(**good | arguments)
