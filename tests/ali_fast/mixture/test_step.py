"""Many members at once are each one alone: against torch's own layers, losses and Adam, and against a stack of one."""

import copy
import dataclasses

import pytest
import torch
from alone import BATCH, SETTINGS, SIZES, STEPS, Alone

from ali_fast.mixture import nets
from ali_fast.mixture.models import MODELS
from ali_fast.mixture.step import Step


def tensors(model, r):
    return {name: tensor[r] for name, tensor in model.state_dict().items()}


def difference(ours, theirs):
    pairs = list(zip(ours, theirs, strict=True))
    assert pairs
    return max(float((a - b).detach().abs().max()) for a, b in pairs)


@pytest.mark.parametrize("r", range(len(SETTINGS)))
def test_a_member_is_the_usual_model_trained_alone(make_step, name, rows, points, r):
    """Twenty steps in float64: torch's layers, each player's loss by its own backward, torch.optim.Adam."""
    step = make_step(name)
    alone = Alone(name, copy.deepcopy(step.model), r, SETTINGS[r], STEPS)
    losses = []
    for s in range(STEPS):
        z, eps, blur = (noise[r] for noise in step.noise(BATCH))
        losses.append(alone.step(points[rows[s, r]], z, eps, blur))
        step(rows[s])
    trained = [p[r] for p in step.model.parameters()]
    assert difference(trained, alone.parameters()) < 1e-9
    means = step.read_losses()[r]
    expected = torch.stack(losses).mean(dim=0)
    ours = means[[1, 0]] if len(means) == 4 else means[:1]
    assert float((ours - expected).abs().max()) < 1e-9

    norms = [m for net in step.model.children() for m in net.modules() if isinstance(m, nets.Normalized) and m.training]
    assert difference([n.running_mean[r] for n in norms], [mean for mean, _ in alone.running()]) < 1e-9
    first = (1 - nets.BATCH_NORM_MOMENTUM) ** STEPS  # what is left of the initial 1
    unbiased = BATCH / (BATCH - 1)
    ours_unbiased = [first + (n.running_var[r] - first) * unbiased for n in norms]
    assert difference(ours_unbiased, [var for _, var in alone.running()]) < 1e-9


def test_a_member_does_not_depend_on_its_neighbours(make_step, name, rows):
    """In float64 to 1e-9 after twenty steps, weights, averages and losses."""
    together = make_step(name)
    for s in range(STEPS):
        together(rows[s])
    losses = together.read_losses()
    for r in range(len(SETTINGS)):
        alone = make_step(name, members=(r,))
        for s in range(STEPS):
            alone(rows[s, r : r + 1])
        assert difference(tensors(together.model, r).values(), tensors(alone.model, 0).values()) < 1e-9
        assert float((losses[r] - alone.read_losses()[0]).abs().max()) < 1e-9


def test_codes_of_another_size_than_the_points(points, rows):
    for name in MODELS:
        model = MODELS[name](1, dataclasses.replace(SIZES, z=3)).double()
        model.initialize([1], [0.1])
        step = Step(model, points, SETTINGS[:1], [1], total_steps=STEPS, compile=False)
        step(rows[0, :1])
        assert step.first_bad_steps() == [None]


def test_a_frozen_decoder_stays_as_it_is(make_step, rows):
    for name in ("inverse", "post-hoc"):
        step = make_step(name)
        before = copy.deepcopy(step.model.decoder.state_dict())
        for s in range(3):
            step(rows[s])
        after = step.model.decoder.state_dict()
        assert all(torch.equal(before[key], after[key]) for key in before)


def test_a_diverged_member_is_noted_and_leaves_the_others_alone(make_step, rows):
    healthy, sick = make_step("ali"), make_step("ali")
    for s in range(6):
        if s == 2:
            with torch.no_grad():
                sick.model.decoder.layers[0].weight[1, 0, 0] = float("inf")
        healthy(rows[s])
        sick(rows[s])
    assert healthy.first_bad_steps() == [None, None, None]
    assert sick.first_bad_steps() == [None, 2, None]
    for r in (0, 2):
        ours, theirs = tensors(sick.model, r), tensors(healthy.model, r)
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_noise_is_normal_and_each_step_site_and_member_has_its_own(make_step):
    step = make_step("ali")
    draws = []
    for _ in range(40):
        draws.append(torch.cat([noise for noise in step.noise(200)], dim=1))
        step.counter += 1
    values = torch.stack(draws)  # [steps, members, 800, 2]
    assert abs(float(values.mean())) < 0.01
    assert abs(float(values.std()) - 1) < 0.01
    assert abs(float((values**4).mean()) - 3) < 0.1
    flat = values.flatten()
    assert len(flat.unique()) > 0.995 * len(flat)  # a repeated stream would lose a third and more
    series = values.reshape(40, 3, -1)
    assert abs(float((series[1:] * series[:-1]).mean())) < 0.01
    assert abs(float((series[:, 0] * series[:, 1]).mean())) < 0.015
    assert abs(float((values[..., 0] * values[..., 1]).mean())) < 0.01


def test_resuming_is_never_having_stopped(make_step, name, rows):
    straight, first = make_step(name), make_step(name)
    for s in range(12):
        straight(rows[s])
        if s < 5:
            first(rows[s])
    second = make_step(name)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for s in range(5, 12):
        second(rows[s])
    ours, theirs = second.model.state_dict(), straight.model.state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert torch.equal(second.read_losses(), straight.read_losses())


@pytest.mark.skipif(torch.__version__ < (2, 12), reason="a bug of torch 2.11: see ali_fast.decide.compiles")
@pytest.mark.parametrize("name", ["ali", "vae"])
def test_compiled_is_eager(make_step, name, rows):
    eager, compiled = make_step(name), make_step(name, compile=True)
    for s in range(STEPS):
        eager(rows[s])
        compiled(rows[s])
    assert difference(compiled.model.state_dict().values(), eager.model.state_dict().values()) < 1e-9
    assert float((compiled.read_losses() - eager.read_losses()).abs().max()) < 1e-9


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_captured_on_a_gpu_is_eager_on_a_cpu(make_step, name, rows):
    eager, captured = make_step(name), make_step(name, device="cuda", compile=True, cuda_graph=True)
    for s in range(STEPS):
        eager(rows[s])
        captured(rows[s].cuda())
    ours = [tensor.cpu() for tensor in captured.model.state_dict().values()]
    assert difference(ours, eager.model.state_dict().values()) < 1e-9
    assert float((captured.read_losses() - eager.read_losses()).abs().max()) < 1e-9
