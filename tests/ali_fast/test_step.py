"""The update: simultaneous Adams, running statistics, metrics, state, precision, compilation."""

import copy

import pytest
import torch

from ali_fast import capture
from ali_fast.objective import METRICS, ali
from ali_fast.pixels import to_x
from ali_fast.step import Step


def images(model, seed=0, batch=8):
    a = model.architecture
    shape = (batch, a.image_size, a.image_size, a.image_channels)
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def tensors(step):
    return [*step.model.parameters(), *step.model.buffers()]


def difference(ours, theirs):
    pairs = [(a.detach(), b.detach()) for a, b in zip(ours, theirs, strict=True)]
    return max(float((a - b).norm() / b.norm().clamp_min(1e-12)) for a, b in pairs)


def test_both_players_move_from_the_same_point(make_small, kind):
    """Three steps against torch's plain Adam on gradients taken before either has moved."""
    model = make_small(kind)
    step = Step(copy.deepcopy(model), learning_rate=1e-2, compile=False)
    players = model.generator_parameters(), model.discriminator_parameters()
    adams = [torch.optim.Adam(p, lr=1e-2, betas=(0.5, 0.999), foreach=False) for p in players]
    running = [t.clone() for norm in model.trained_norms() for t in (norm.running_mean, norm.running_var)]
    torch.manual_seed(2)
    for i in range(3):
        step(images(model, i))
    torch.manual_seed(2)
    for i in range(3):
        z, seeds = step.noise(8)
        x = to_x(images(model, i), model.architecture.image_size, torch.float64)
        outcome = ali(model, x, z.double(), seeds, "two")
        batch = [new for pair in outcome.statistics for new in pair]
        running = [0.95 * r + 0.05 * s for r, s in zip(running, batch, strict=True)]
        for parameters, gradients in zip(players, (outcome.generator, outcome.discriminator), strict=True):
            for p, g in zip(parameters, gradients, strict=True):
                p.grad = g
        for adam in adams:
            adam.step()
    assert difference(list(step.model.parameters()), list(model.parameters())) < 1e-10
    ours = [t for norm in step.norms for t in (norm.running_mean, norm.running_var)]
    assert difference(ours, running) < 1e-6


@pytest.mark.parametrize("more", [{}, {"deterministic": True}])
def test_e_beside_g_is_the_same_step(make_small, kind, more):
    """Three programs' gradients, statistics and metrics are one's: on a CPU, in turn, the same operations."""
    steps = [
        Step(make_small(kind, **more), learning_rate=1e-3, compile=False, ema=0.9, overlap_encoder=overlap)
        for overlap in (False, True)
    ]
    for step in steps:
        torch.manual_seed(4)
        for i in range(3):
            step(images(step.model, i))
    assert all(torch.equal(a, b) for a, b in zip(tensors(steps[0]), tensors(steps[1]), strict=True))
    assert steps[0].read_metrics() == steps[1].read_metrics()


def test_metrics_are_means_since_the_last_reading(make_small):
    model = make_small("maxout")
    step = Step(model, learning_rate=1e-3, compile=False)
    seen = []
    for i in range(3):
        z, seeds = step.noise(8)
        outcome = step.play(images(model, i), z, seeds)
        step.accumulate(outcome)
        step.summed += 1
        seen.append(outcome.metrics.double())
    values = step.read_metrics()
    expected = torch.stack(seen).mean(0).tolist()
    assert [values[name] for name in METRICS["ali"]] == pytest.approx(expected, rel=1e-6)
    step(images(model))
    assert step.read_metrics()["loss_d"] != values["loss_d"]


def test_the_first_step_that_is_not_finite_is_remembered(make_small):
    model = make_small("norm")
    step = Step(model, learning_rate=1e-3, compile=False)
    for _ in range(2):
        step(images(model))
    assert step.first_bad_step() is None
    model.discriminator.xz.products[-1].bias.data.fill_(float("nan"))
    for _ in range(2):
        step(images(model))
    assert step.first_bad_step() == 2


def test_a_restored_step_goes_on_bit_for_bit(make_small, kind, tmp_path):
    straight = Step(make_small(kind), learning_rate=1e-3, compile=False)
    torch.manual_seed(4)
    for i in range(3):
        straight(images(straight.model, i))
    torch.save(straight.state_dict(), tmp_path / "state.pt")
    for i in range(3, 6):
        straight(images(straight.model, i))
    resumed = Step(make_small(kind), learning_rate=1e-3, compile=False)
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for i in range(3, 6):
        resumed(images(resumed.model, i))
    assert all(torch.equal(a, b) for a, b in zip(tensors(straight), tensors(resumed), strict=True))
    assert straight.read_metrics() == resumed.read_metrics()
    assert straight.steps == resumed.steps == 6


def test_bf16_gradients_are_near_and_masters_stay_float32(make_small, kind):
    model = make_small(kind, torch.float32)
    exact = Step(copy.deepcopy(model), learning_rate=1e-3, compile=False)
    amp = Step(model, learning_rate=1e-3, dtype=torch.bfloat16, compile=False)
    z, seeds = exact.noise(8)
    theirs = exact.play(images(model), z, seeds)
    ours = amp.play(images(model), z, seeds)
    for a, b in ((ours.generator, theirs.generator), (ours.discriminator, theirs.discriminator)):
        flat = [torch.cat([g.flatten().float() for g in gradients]) for gradients in (a, b)]
        assert torch.nn.functional.cosine_similarity(*flat, dim=0) > 0.9
    amp.adam.step(ours.generator, ours.discriminator)
    assert {p.dtype for p in amp.model.parameters()} == {torch.float32}
    weight, copied = amp.model.encoder.products[0].weight, amp.working.encoder.products[0].weight
    assert copied.dtype == torch.bfloat16
    assert torch.equal(copied, weight.to(torch.bfloat16))


def test_fp16_skips_a_step_that_overflows_and_halves_the_scale(make_small):
    model = make_small("maxout", torch.float32)
    step = Step(model, learning_rate=1e-3, dtype=torch.float16, compile=False)
    step(images(model))
    before, scale = [p.clone() for p in model.parameters()], float(step.adam.scale)
    z, seeds = step.noise(8)
    outcome = step.play(images(model), z, seeds)
    outcome.generator[0].view(-1)[0] = float("inf")
    step.adam.step(outcome.generator, outcome.discriminator)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert float(step.adam.scale) == scale / 2
    assert step.read_metrics()["skipped_steps"] >= 1


def test_ema_averages_the_generators_weights_and_statistics(make_small, kind):
    model = make_small(kind)
    step = Step(model, learning_rate=1e-2, compile=False, ema=0.7)
    expected = {name: t.clone() for name, t in model.state_dict().items()}
    for i in range(4):
        step(images(model, i))
        expected = {name: 0.7 * t + 0.3 * model.state_dict()[name] for name, t in expected.items()}
    shown = step.shown.state_dict()
    of_g = [name for name in expected if not name.startswith("discriminator.")]
    assert difference([shown[name] for name in of_g], [expected[name] for name in of_g]) < 1e-6
    assert step.shown.discriminator is model.discriminator
    assert min(float((shown[n] - model.state_dict()[n]).abs().max()) for n in of_g if n.endswith("weight")) > 1e-4
    resumed = Step(make_small(kind), learning_rate=1e-2, compile=False, ema=0.7)
    resumed.load_state_dict(copy.deepcopy(step.state_dict()))
    for each in (step, resumed):
        torch.manual_seed(9)
        each(images(model, 9))
    assert all(torch.equal(a, b) for a, b in zip(tensors(resumed), tensors(step), strict=True))
    theirs = step.shown.state_dict()
    assert all(torch.equal(t, theirs[name]) for name, t in resumed.shown.state_dict().items())


def test_without_ema_the_model_itself_is_shown(make_small):
    step = Step(make_small("maxout"), learning_rate=1e-2, compile=False)
    assert step.shown is step.model
    assert "ema" not in step.state_dict()


def test_fifty_compiled_steps_are_fifty_eager_steps(make_small, kind):
    """Half a minute each, and in every run: a miscompiled step would train, and wrongly."""
    samples = images(make_small(kind), batch=60)
    eager = Step(make_small(kind), learning_rate=1e-3, compile=False)
    compiled = Step(make_small(kind), learning_rate=1e-3, compile=True, samples=samples)
    for step in (eager, compiled):
        torch.manual_seed(6)
        for i in range(50):
            step(samples[i : i + 8] if step is eager else torch.arange(i, i + 8))
    assert difference(tensors(compiled), tensors(eager)) < 1e-10
    assert compiled.read_metrics() == pytest.approx(eager.read_metrics(), rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["gan", "inverse", "post-hoc", "vae"])
def test_every_game_without_labels_compiles_whole(make_small, objective):
    """Those with labels: test_semi_supervised, test_conditional."""
    samples = images(make_small("norm"), batch=60)
    eager, compiled = (
        Step(make_small("norm", objective=objective), learning_rate=1e-3, compile=compile) for compile in (False, True)
    )
    for step in (eager, compiled):
        torch.manual_seed(6)
        for i in range(20):
            step(samples[i : i + 8])
    assert difference(tensors(compiled), tensors(eager)) < 1e-10
    assert compiled.read_metrics() == pytest.approx(eager.read_metrics(), rel=1e-6)


def test_batches_by_number_are_the_same_images(make_small, kind):
    samples, rows = images(make_small(kind), 3, batch=20), torch.randint(20, (2, 8))
    streamed = Step(make_small(kind), learning_rate=1e-3, compile=False)
    resident = Step(make_small(kind), learning_rate=1e-3, compile=False, samples=samples)
    for step in (streamed, resident):
        torch.manual_seed(8)
        for row in rows:
            step(row if step is resident else samples[row])
    assert all(torch.equal(a, b) for a, b in zip(tensors(resident), tensors(streamed), strict=True))


def test_a_process_may_compile_many_steps(monkeypatch):
    """torch by default refuses the ninth compilation of one method; what they are compiled to does not matter here."""

    class Adder:
        def __init__(self, n):
            self.n = n

        def add(self, x):
            return x + self.n

    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, options, **flags: real(f, backend="eager", **flags))
    adders = [Adder(n) for n in range(12)]
    added = [capture.compiled(adder.add, torch.device("cpu")) for adder in adders]
    assert [float(add(torch.ones(1))) for add in added] == list(range(1, 13))


def flat(gradients):
    return torch.cat([g.detach().flatten().double() for g in gradients])


@pytest.mark.slow
def test_compiled_float32_is_as_exact_as_eager_float32(make_small, kind):
    """One step's gradients, all given the same noise: at most three times as far from float64's as eager's are."""
    exact, single = (make_small(kind, dtype) for dtype in (torch.float64, torch.float32))
    batch = images(exact)
    reference = Step(exact, learning_rate=1e-3, compile=False)
    torch.manual_seed(6)
    z, seeds = reference.noise(8)
    theirs = reference.play(batch, z, seeds)
    eager = Step(single, learning_rate=1e-3, compile=False).play(batch, z, seeds)
    ours = Step(single, learning_rate=1e-3, compile=True).turn(batch, z, seeds)
    for i, player in enumerate(("generator", "discriminator")):
        truth = flat(getattr(theirs, player))
        eager_error, our_error = (float((flat(g) - truth).norm()) for g in (getattr(eager, player), ours[i]))
        assert 0 < our_error <= 3 * eager_error, player


@pytest.mark.slow
def test_compiled_amp_lies_within_the_spread_of_eager_amp_runs(make_small, kind):
    """Two eager runs differ by their noise; a compiled one with the first's noise stays nearer to the first."""
    ended = []
    for seed, compile in ((6, False), (7, False), (6, True)):
        step = Step(make_small(kind, torch.float32), learning_rate=1e-3, dtype=torch.bfloat16, compile=compile)
        torch.manual_seed(seed)
        for i in range(10):
            step(images(step.model, i))
        assert step.first_bad_step() is None
        ended.append((flat(step.model.parameters()), step.read_metrics()))
    (first, metrics), (second, _), (compiled, compiled_metrics) = ended
    assert torch.isfinite(compiled).all()
    assert float((compiled - first).norm()) < 0.5 * float((second - first).norm())
    assert compiled_metrics == pytest.approx(metrics, rel=0.02)
