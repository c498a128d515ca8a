"""Adam against torch's, in float64; low-precision gradients and copies against the formula."""

import copy

import pytest
import torch

from ali_fast.optim import Adam


def gradients(model, seed, dtype):
    generator = torch.Generator().manual_seed(seed)
    players = model.generator_parameters(), model.discriminator_parameters()
    return [[torch.randn(p.shape, generator=generator).to(dtype) for p in theta] for theta in players]


def test_it_is_torchs_adam(make_small):
    """Moments, weights and a learning rate that changes on the way, to 1e-12 after seven steps."""
    model = make_small("norm")
    usual = copy.deepcopy(model)
    theirs = [*usual.generator_parameters(), *usual.discriminator_parameters()]
    adam = torch.optim.Adam(theirs, lr=1e-2, betas=(0.3, 0.9), foreach=False)
    ours = Adam(model, model, learning_rate=1e-2, betas=(0.3, 0.9), compile=False)
    for step in range(7):
        if step == 4:
            adam.param_groups[0]["lr"] = 1e-3
            ours.learning_rate.fill_(1e-3)
        drawn = gradients(model, step, torch.float64)
        ours.step(*drawn)
        for p, g in zip(theirs, [*drawn[0], *drawn[1]], strict=True):
            p.grad = g
        adam.step()
    for p, m, v, their in zip(ours.masters, ours.m, ours.v, theirs, strict=True):
        state = adam.state[their]
        for a, b in ((p, their), (m, state["exp_avg"]), (v, state["exp_avg_sq"])):
            assert float((a - b).detach().norm() / b.detach().norm()) < 1e-12


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_gradients_move_float32_masters_and_their_copies(make_small, dtype):
    model = make_small("maxout", torch.float32)
    working = model.working_copy(dtype)
    adam = Adam(
        model, working, learning_rate=1e-2, betas=(0.5, 0.999), loss_scale=dtype == torch.float16, compile=False
    )
    before = [p.detach().clone() for p in adam.masters]
    drawn = gradients(model, 0, dtype)
    scale = 1.0 if adam.scale is None else float(adam.scale)
    # the first step moves every weight by the learning rate, whatever the gradient's size
    adam.step(*[[g.float().mul(scale).to(dtype).clamp(-6e4, 6e4) for g in theta] for theta in drawn])
    for p, old, g in zip(adam.masters, before, [*drawn[0], *drawn[1]], strict=True):
        far = g.abs() > 1e-3
        moved = (p.detach() - old)[far]
        assert torch.allclose(moved, -1e-2 * g[far].sign().float(), atol=1e-5)
    pairs = [(copy, p) for copy, p in zip(adam.copies, adam.masters, strict=True) if copy is not None]
    assert pairs
    assert all(torch.equal(copy, p.to(dtype)) for copy, p in pairs)


def test_one_overflow_stops_all_and_is_not_counted(make_small):
    model = make_small("maxout", torch.float32)
    adam = Adam(
        model, model.working_copy(torch.float16), learning_rate=1e-2, betas=(0.5, 0.999), loss_scale=True, compile=False
    )
    drawn = gradients(model, 0, torch.float16)
    adam.step(*drawn)
    before = [t.detach().clone() for t in (*adam.masters, *adam.m, *adam.v, adam.count)]
    drawn[1][-1].view(-1)[0] = float("nan")
    adam.step(*drawn)
    assert all(torch.equal(a, b) for a, b in zip(before, (*adam.masters, *adam.m, *adam.v, adam.count), strict=True))
    assert int(adam.skipped) == 1
    drawn[1][-1].view(-1)[0] = 1.0
    adam.step(*drawn)
    assert not torch.equal(before[0], adam.masters[0])
    assert float(adam.count) == 2


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_compiled_is_eager(make_small, dtype):
    """Three steps: weights differ by rounding alone."""
    made = []
    for compile in (False, True):
        model = make_small("norm", torch.float32)
        working = model if dtype == torch.float32 else model.working_copy(dtype)
        adam = Adam(model, working, learning_rate=1e-2, betas=(0.5, 0.999), compile=compile)
        for step in range(3):
            adam.step(*gradients(model, step, dtype))
        made.append(adam)
    for name in ("masters", "m", "v"):
        for a, b in zip(getattr(made[0], name), getattr(made[1], name), strict=True):
            assert float((a - b).detach().norm() / b.detach().norm()) < 1e-6
