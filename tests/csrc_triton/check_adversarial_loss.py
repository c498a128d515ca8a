"""adversarial_loss's launcher against float64 autograd: the same comparison in the interpreter and on a GPU."""

import torch
import torch.nn.functional as F
from comparing import assert_close
from hypothesis import strategies as st

from csrc_triton.adversarial_loss import LOGIT_LIMIT, launch_forward

# (2N, standard deviation of the logits, loss scale)
CASES = {
    "the paper's": (200, 2.0, None),
    "scaled": (200, 2.0, 1024.0),
    "one pair of each": (2, 1.0, None),
    "odd N": (246, 4.0, None),
    "several blocks": (2600, 1.0, None),
    "saturated": (64, 30.0, None),
}
DRAWN = dict(
    count=st.integers(1, 1200).map(lambda n: 2 * n),
    std=st.sampled_from([0.1, 3.0, 30.0]),
    scale=st.sampled_from([None, 1024.0]),
)


def losses64(logits):
    """L_d, L_g as the paper writes them."""
    q, p = logits.chunk(2)
    softplus = lambda t: torch.logaddexp(t, torch.zeros_like(t))  # noqa: E731
    return softplus(-q).mean() + softplus(p).mean(), softplus(q).mean() + softplus(-p).mean()


def check(count, std, scale, *, dtype, device):
    generator = torch.Generator().manual_seed(0)
    logits = (torch.randn(count, generator=generator) * std).to(device, dtype)
    scale32 = None if scale is None else torch.tensor(scale, device=device)
    stats, seed_d, seed_g, factor = launch_forward(logits, scale32)

    raw = logits.double().requires_grad_()
    clamped = logits.double().clamp(-LOGIT_LIMIT, LOGIT_LIMIT).requires_grad_()
    loss_d, loss_g = losses64(raw)
    (g64,) = torch.autograd.grad(loss_g, raw)
    (d64,) = torch.autograd.grad(losses64(clamped)[0], clamped)
    (clamped_g64,) = torch.autograd.grad(losses64(clamped)[1], clamped)
    scores = [F.sigmoid(half).mean() for half in raw.chunk(2)]

    assert stats.dtype == factor.dtype == torch.float32 and seed_d.dtype == seed_g.dtype == dtype
    assert_close(stats, torch.stack([loss_d, loss_g, *scores]), "loss32", dtype, "stats")
    assert_close(seed_d, d64 * (scale or 1), "loss", dtype, "seed_d")
    assert_close(seed_g, g64 * (scale or 1), "loss", dtype, "seed_g")
    # factors span 13 orders of magnitude: each to its own size
    relative = (factor.double() * d64 / clamped_g64 - 1).abs().max()
    assert relative < 2e-6, f"factor: relative error {relative:.1e}"
