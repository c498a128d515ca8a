"""adversarial_loss without a GPU: the reference, the registration, the errors."""

import pytest
import torch
from check_adversarial_loss import losses64
from comparing import DTYPES, FP32, assert_close
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.library import opcheck

from csrc_triton.adversarial_loss import LOGIT_LIMIT, adversarial_loss, forward_op


@pytest.mark.parametrize("backend", ["eager", "inductor", "triton"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_against_float64_autograd(backend, dtype):
    logits = (torch.randn(200, generator=torch.Generator().manual_seed(0)) * 3).to(dtype)
    got = adversarial_loss(logits.requires_grad_(), backend=backend)
    raw = logits.detach().double().requires_grad_()
    loss_d, loss_g = losses64(raw)
    (seed_d,), (seed_g,) = (torch.autograd.grad(loss, raw, retain_graph=True) for loss in (loss_d, loss_g))
    q, p = raw.sigmoid().chunk(2)
    assert_close(got.stats, torch.stack([loss_d, loss_g, q.mean(), p.mean()]), "loss32", dtype, "stats")
    assert_close(got.seed_d, seed_d, "loss", dtype, "seed_d")
    assert_close(got.seed_g, seed_g, "loss", dtype, "seed_g")
    torch.testing.assert_close(got.factor.double(), seed_g / seed_d, rtol=2e-6, atol=0)
    assert got.seed_d.dtype == got.seed_g.dtype == dtype and got.stats.dtype == got.factor.dtype == FP32
    assert not any(t.requires_grad for t in got)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.floats(-LOGIT_LIMIT, LOGIT_LIMIT, width=32), min_size=2, max_size=12).filter(lambda x: len(x) % 2 == 0)
)
def test_one_backward_is_exact_pair_by_pair(values):
    """seed_d * factor is seed_g, each pair to its own size, up to the limit."""
    logits = torch.tensor(values, dtype=FP32)
    got = adversarial_loss(logits, backend="eager")
    torch.testing.assert_close(got.seed_d * got.factor, got.seed_g, rtol=1e-6, atol=1e-38)


@pytest.mark.parametrize("value", [30.0, -30.0, 100.0, -100.0])
def test_saturated_logits(value):
    """D wins or loses everywhere: L_g's gradient by the factor is the direct one, to 1e-6 of the largest (1/N)."""
    logits = torch.tensor([value, -value] * 8)
    got = adversarial_loss(logits, backend="eager")
    assert all(t.isfinite().all() for t in got)
    assert ((got.seed_d * got.factor - got.seed_g).abs() * 8).max() < 1e-6
    direct = adversarial_loss(logits.double(), backend="eager")
    torch.testing.assert_close(got.stats.double(), direct.stats, rtol=1e-6, atol=1e-12)


def test_scale_multiplies_the_seeds_alone():
    logits = torch.linspace(-4, 4, 32)
    for backend in ("eager", "triton"):
        plain = adversarial_loss(logits, backend=backend)
        scaled = adversarial_loss(logits, scale=torch.tensor(512.0), backend=backend)
        assert torch.equal(scaled.seed_d, plain.seed_d * 512) and torch.equal(scaled.seed_g, plain.seed_g * 512)
        assert torch.equal(scaled.stats, plain.stats) and torch.equal(scaled.factor, plain.factor)


def test_small_seeds_survive_fp16_when_scaled():
    """A pair D is sure of: 1e-6 / N is below fp16's smallest number, 65536 times that is not."""
    logits = torch.tensor([14.0] * 100 + [-14.0] * 100, dtype=torch.float16)
    assert not adversarial_loss(logits, backend="eager").seed_d.any()
    assert adversarial_loss(logits, scale=torch.tensor(65536.0), backend="eager").seed_d.all()


def test_a_nan_logit_shows():
    got = adversarial_loss(torch.tensor([float("nan"), 0.0]), backend="eager")
    assert got.stats[:3].isnan().all() and got.seed_d[0].isnan() and got.seed_g[0].isnan() and got.factor[0].isnan()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_opcheck(dtype):
    opcheck(forward_op, (torch.randn(8, dtype=dtype), torch.tensor(2.0)))
    opcheck(forward_op, (torch.randn(16, dtype=dtype)[::2], None))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(logits=torch.zeros(3)), r"logits has shape \[3\]: an even number is needed"),
        (dict(logits=torch.zeros(4, 1)), r"logits has shape \[4, 1\]: \[2N\] is needed"),
        (dict(logits=torch.zeros(0)), "1 to 2"),
        (dict(logits=torch.zeros(4, dtype=torch.float64)), "logits is torch.float64"),
        (dict(scale=torch.zeros(1)), r"scale has shape \[1\]: \[\]"),
        (dict(backend=""), "backend is ''"),
    ],
)
def test_errors_name_what_is_wrong(arguments, message):
    with pytest.raises(ValueError, match=message):
        adversarial_loss(**dict(logits=torch.zeros(4), backend="triton") | arguments)
