"""K+1 classes: the loss against torch's cross-entropies, both gradients against two plain backwards, in float64."""

import copy

import pytest
import torch
import torch.nn.functional as F

from ali_fast.class_loss import class_loss
from ali_fast.data.labelled import Labelled
from ali_fast.objective import METRICS, cheapest_route, semi_supervised
from ali_fast.pixels import to_x
from ali_fast.step import Step
from csrc_triton.reparametrize import reparametrize

M, N, K = 6, 4, 3


@pytest.fixture
def make(make_small):
    return lambda kind, dtype=torch.float64: make_small(kind, dtype, objective="semi-supervised", classes=K)


def inputs(model, seed=5):
    a, g = model.architecture, torch.Generator().manual_seed(seed)
    shape = (M + N, a.image_channels, a.image_size, a.image_size)
    x = torch.rand(shape, dtype=torch.float64, generator=g).contiguous(memory_format=torch.channels_last)
    z = torch.randn(M + N, a.z_dim, 1, 1, dtype=torch.float64, generator=g)
    y = torch.randint(K, (N,), generator=g)
    return x, z, torch.randint(2**63 - 1, (model.sites,), generator=g), y


def plain_losses(logits, y):
    """Both losses as K+1-class cross-entropies, the last logit 0; the unlabelled pairs' "any class" by its share."""
    wide = torch.cat([logits, torch.zeros(len(logits), 1, dtype=logits.dtype)], 1)
    shares = wide.softmax(1)
    data, _, samples = shares.split([M, N, M])
    missing = F.cross_entropy(wide[M : M + N], y)
    l_d = -(1 - data[:, K]).log().mean() + F.cross_entropy(wide[M + N :], torch.full((M,), K)) + missing
    l_g = F.cross_entropy(wide[:M], torch.full((M,), K)) - (1 - samples[:, K]).log().mean()
    return l_d, l_g, missing


def reference(model, x, z, seeds, y):
    """One forward by the model's own modules, which test_objective holds to torch's; two whole backwards."""
    codes, d = model.encoder(x, seeds, []), model.discriminator
    joint = reparametrize(
        codes, z, dropout=model.z_dropout, seeds=seeds, slot=model.noise_slot, backend=model.kernels.reparametrize
    )
    pairs = torch.cat([joint[: M + N], joint[M + N : M + N + M]])
    x_tilde = model.decoder(z[:M], seeds, [])
    logits = d.head(d.features(torch.cat([x, x_tilde]), seeds, []), pairs, seeds)
    l_d, l_g, missing = plain_losses(logits, y)
    to_d = torch.autograd.grad(l_d, model.discriminator_parameters(), retain_graph=True)
    to_g = torch.autograd.grad(l_g, model.generator_parameters())
    s = logits.logsumexp(1)
    scores = torch.sigmoid(s[:M]).mean(), torch.sigmoid(s[M + N :]).mean()
    return torch.stack([l_d, l_g, *scores, missing]).detach(), to_g, to_d


def difference(ours, theirs):
    assert len(ours) == len(theirs)
    return max(float((a - b).norm() / b.norm().clamp_min(1e-300)) for a, b in zip(ours, theirs, strict=True))


def test_the_loss_its_seeds_and_the_factor():
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(2 * M + N, K, dtype=torch.float64, generator=g, requires_grad=True)
    y = torch.randint(K, (N,), generator=g)
    l_d, l_g, missing = plain_losses(logits, y)
    loss = class_loss(logits.detach(), y)
    torch.testing.assert_close(loss.stats[[0, 1, 4]], torch.stack([l_d, l_g, missing]).detach())
    torch.testing.assert_close(loss.seed_d, torch.autograd.grad(l_d, logits, retain_graph=True)[0])
    torch.testing.assert_close(loss.seed_g, torch.autograd.grad(l_g, logits)[0])
    torch.testing.assert_close(loss.factor[:, None] * loss.seed_d, loss.seed_g)
    s = logits.detach().logsumexp(1)
    expected = torch.cat([-s[:M].exp(), torch.zeros(N, dtype=torch.float64), -(-s[M + N :]).exp()])
    torch.testing.assert_close(loss.factor, expected)
    scaled = class_loss(logits.detach(), y, torch.tensor(8.0, dtype=torch.float64))
    torch.testing.assert_close(scaled.seed_d, 8 * loss.seed_d)
    torch.testing.assert_close(scaled.seed_g, 8 * loss.seed_g)


@pytest.mark.parametrize("won", [200.0, -200.0])
def test_a_won_game_stays_finite(won):
    logits = torch.full((2 * M + N, K), won)
    loss = class_loss(logits, torch.zeros(N, dtype=torch.int64))
    assert all(t.isfinite().all() for t in loss)


def test_every_route_gives_both_players_gradients(make, kind):
    model = make(kind)
    x, z, seeds, y = inputs(model)
    losses, to_g, to_d = reference(model, x, z, seeds, y)
    for route in ("one", "split", "two") if model.architecture.pairs_independent else ("split", "two"):
        outcome = semi_supervised(model, x, z, seeds, route, None, y)
        torch.testing.assert_close(outcome.metrics[:-1], losses)
        assert difference(outcome.generator, to_g) < 1e-12, route
        assert difference(outcome.discriminator, to_d) < 1e-12, route
    assert cheapest_route(model.architecture, torch.float32) == ("one" if kind == "maxout" else "split")


def test_labelled_pairs_teach_d_alone(make):
    """Without batch norm in D, E's and G's gradients do not feel other labels; D's do."""
    model = make("maxout")
    x, z, seeds, y = inputs(model)
    a, b = (semi_supervised(model, x, z, seeds, "one", None, labels) for labels in (y, (y + 1) % K))
    assert difference(a.generator, b.generator) == 0
    assert difference(a.discriminator, b.discriminator) > 1e-3


def fixed(model, count=12):
    a, g = model.architecture, torch.Generator().manual_seed(1)
    shape = (count, a.image_size, a.image_size, a.image_channels)
    return Labelled(torch.randint(0, 256, shape, dtype=torch.uint8, generator=g), torch.arange(count) % K)


def test_a_step_takes_labelled_images_beside_the_batch(make, kind):
    model = make(kind)
    labelled = fixed(model)
    step = Step(copy.deepcopy(model), learning_rate=1e-3, compile=False, labelled=labelled)
    images = fixed(model, 8).images
    torch.manual_seed(3)
    step(images)
    torch.manual_seed(3)
    rows = torch.randint(len(labelled.labels), (4,))
    z, seeds = step.noise(12)
    x = to_x(torch.cat([images, labelled.images[rows]]), model.architecture.image_size, torch.float64)
    expected = semi_supervised(model, x, z.double(), seeds, "two", None, labelled.labels[rows])
    found = step.read_metrics()
    names = METRICS["semi-supervised"]
    assert [found[name] for name in names] == pytest.approx(expected.metrics.tolist(), rel=1e-6)


@pytest.mark.slow
def test_compiled_steps_are_eager_steps(make, kind):
    steps = [
        Step(make(kind), learning_rate=1e-3, compile=compiles, labelled=fixed(make(kind))) for compiles in (False, True)
    ]
    for step in steps:
        torch.manual_seed(6)
        for i in range(10):
            step(fixed(step.model, 20).images[i : i + 8])
    eager, compiled = (list(step.model.parameters()) for step in steps)
    assert difference(compiled, eager) < 1e-10


def test_ema_averages_the_classifier_too(make):
    model = make("maxout", torch.float32)
    a = model.architecture
    images = torch.randint(0, 256, (40, a.image_size, a.image_size, a.image_channels), dtype=torch.uint8)
    labelled = Labelled(images, torch.randint(K, (40,)))
    step = Step(model, learning_rate=1e-2, compile=False, ema=0.7, labelled=labelled)
    expected = {name: t.clone() for name, t in model.state_dict().items()}
    for i in range(4):
        step(images[i : i + 8])
        expected = {name: 0.7 * t + 0.3 * model.state_dict()[name] for name, t in expected.items()}
    shown = step.shown.state_dict()
    assert difference([shown[name] for name in expected], list(expected.values())) < 1e-6
    changed = [n for n in expected if n.startswith("discriminator.") and n.endswith("weight")]
    assert changed and min(float((shown[n] - model.state_dict()[n]).abs().max()) for n in changed) > 1e-4
    resumed = Step(make("maxout", torch.float32), learning_rate=1e-2, compile=False, ema=0.7, labelled=labelled)
    resumed.load_state_dict(copy.deepcopy(step.state_dict()))
    assert all(torch.equal(t, shown[name]) for name, t in resumed.shown.state_dict().items())
