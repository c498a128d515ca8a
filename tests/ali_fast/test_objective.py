"""Every player's gradients, in float64, against each objective written out plainly from the tables."""

import math

import pytest
import torch
import torch.nn.functional as F

from ali_fast.objective import GAMES, METRICS, ali, cheapest_route, conditional, negative_bound
from ali_fast.step import Step
from csrc_triton.bias_act import bias_act
from csrc_triton.reparametrize import reparametrize

BATCH = 7
Y_DIM = 6


def mask(shape, rate, seeds, slot):
    """What dropout multiplies by at a site: the ops' own stream, which their own tests hold to its law."""
    if not rate:
        return torch.ones(shape, dtype=torch.float64)
    ones = torch.ones(shape, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
    return bias_act(ones, dropout=rate, seeds=seeds, slot=slot, backend="eager")


def forward(stack, table, slope, h, seeds, dropout_after=0.0, frozen=False, e=None):
    """One table, row by row, with torch's own layers; a frozen one normalizes by its running statistics."""
    for i, row in enumerate(table):
        product, activation = stack.products[i], stack.activations[i]
        if row.condition:
            h = torch.cat([h, e * mask(e.shape, row.dropout, seeds, product.slot)], 1)
        convolve = F.conv2d if row.operation == "conv" else F.conv_transpose2d
        h = convolve(h, product.weight, product.bias, row.stride)
        if row.norm:
            running = (activation.running_mean, activation.running_var) if frozen else (None, None)
            h = F.batch_norm(h, *running, activation.weight, activation.bias, not frozen, 0.0, 1e-4)
        elif row.bias != "none" and row.activation != "linear":
            h = h + (activation.bias if row.bias == "untied" else activation.bias[:, None, None])
        if row.activation == "maxout":
            if row.dropout_site == "before_maxout":
                h = h * mask(h.shape, row.dropout, seeds, activation.slot)
            h = h.unflatten(1, (-1, 2)).amax(2)
        elif row.activation == "sigmoid":
            h = torch.sigmoid(h)
        elif row.activation == "leaky_relu":
            h = F.leaky_relu(h, slope)
        after = table[i + 1] if i + 1 < len(table) else None
        rate = dropout_after if after is None else after.dropout * (after.dropout_site == "input")
        h = h * mask(h.shape, rate, seeds, activation.slot)
    return h


def encode(model, x, seeds, e=None):
    """mu, log_sigma and a sample, all [M, L, 1, 1]."""
    a, m = model.architecture, len(x)
    mu, log_sigma = forward(model.encoder, a.encoder, a.slope, x, seeds, e=e).chunk(2, 1)
    nothing = torch.zeros(m, 2 * a.z_dim, 1, 1, dtype=torch.float64)
    eps = reparametrize(nothing, torch.zeros_like(mu), seeds=seeds, slot=model.noise_slot, backend="eager")[:m]
    return mu, log_sigma, mu + log_sigma.exp() * eps


def decode(model, z, seeds, frozen=False, e=None):
    a = model.architecture
    return forward(model.decoder, a.decoder, a.slope, z, seeds, frozen=frozen, e=e)


def judge(model, x, x_tilde, z_hat, z, seeds, e=None):
    """Logits of data and of samples; of images alone where z_hat is None."""
    a, d = model.architecture, model.discriminator
    x_joint = torch.cat([x, x_tilde])
    x_joint = x_joint * mask(x_joint.shape, a.discriminator_x[0].dropout, seeds, d.input_slot)
    joint = a.discriminator_xz[0].dropout
    h = forward(d.x, a.discriminator_x, a.slope, x_joint, seeds, joint)
    if z_hat is not None:
        ones = torch.ones_like(z)
        kept = reparametrize(
            torch.cat([ones, torch.full_like(ones, -math.inf)], 1),
            ones,
            dropout=model.z_dropout,
            seeds=seeds,
            slot=model.noise_slot,
            backend="eager",
        )
        h_z = forward(d.z, a.discriminator_z, a.slope, torch.cat([z_hat, z]) * kept, seeds, joint)
        h = torch.cat([h, h_z], 1)
    return forward(d.xz, a.discriminator_xz, a.slope, h, seeds, e=e).flatten().chunk(2)


def play(model, l_q, l_p):
    """Algorithm 1's losses from log-sigmoids, two whole backwards. Returns losses and both gradients."""
    l_d = -(F.logsigmoid(l_q).mean() + F.logsigmoid(-l_p).mean())
    l_g = -(F.logsigmoid(-l_q).mean() + F.logsigmoid(l_p).mean())
    to_d = torch.autograd.grad(l_d, model.discriminator_parameters(), retain_graph=True)
    to_g = torch.autograd.grad(l_g, model.generator_parameters())
    scores = torch.sigmoid(l_q).mean(), torch.sigmoid(l_p).mean()
    return torch.stack([l_d, l_g, *scores]).detach(), to_g, to_d


def reference(model, x, z, seeds):
    """ALI: losses and both gradients."""
    z_hat = encode(model, x, seeds)[2]
    return play(model, *judge(model, x, decode(model, z, seeds), z_hat, z, seeds))


def gan_reference(model, x, z, seeds):
    return play(model, *judge(model, x, decode(model, z, seeds), None, z, seeds))


def post_hoc_reference(model, x, z, seeds):
    x_tilde = decode(model, z, seeds, frozen=True).detach()
    return play(model, *judge(model, x, x_tilde, encode(model, x, seeds)[2], z, seeds))


def inverse_reference(model, x, z, seeds):
    """E_z |z - E(G(z))|^2, element by element."""
    z_hat = encode(model, decode(model, z, seeds, frozen=True).detach(), seeds)[2]
    loss = sum(((a - b) ** 2).sum() for a, b in zip(z, z_hat, strict=True)) / len(z)
    return loss.detach()[None], torch.autograd.grad(loss, model.generator_parameters()), ()


def vae_reference(model, x, z, seeds):
    """The bound from torch's distributions; the decoder's variance maximizes the batch's likelihood."""
    mu, log_sigma, z_hat = encode(model, x, seeds)
    x_hat = decode(model, z_hat, seeds)
    s = F.mse_loss(x_hat, x).sqrt()
    missing = -torch.distributions.Normal(x_hat, s).log_prob(x).sum(dim=(1, 2, 3)).mean()
    q, p = torch.distributions.Normal(mu, log_sigma.exp()), torch.distributions.Normal(0.0, 1.0)
    kl = torch.distributions.kl_divergence(q, p).sum(dim=(1, 2, 3)).mean()
    to_g = torch.autograd.grad(missing + kl, model.generator_parameters())
    return torch.stack([missing + kl, missing, kl]).detach(), to_g, ()


def conditional_reference(model, x, z, seeds, y):
    """One linear map of y, the same for E, G and both kinds of pairs; its weights are L_g's player."""
    layer = model.embedding.products[0]
    e = (y.flatten(1) @ layer.weight.flatten(1).t())[:, :, None, None]
    z_hat, x_tilde = encode(model, x, seeds, e)[2], decode(model, z, seeds, e=e)
    return play(model, *judge(model, x, x_tilde, z_hat, z, seeds, torch.cat([e, e])))


REFERENCES = {
    "ali": reference,
    "conditional": conditional_reference,
    "gan": gan_reference,
    "inverse": inverse_reference,
    "post-hoc": post_hoc_reference,
    "vae": vae_reference,
}


def batch(model, seed=5):
    a, g = model.architecture, torch.Generator().manual_seed(seed)
    shape = (BATCH, a.image_channels, a.image_size, a.image_size)
    x = torch.rand(shape, dtype=torch.float64, generator=g).contiguous(memory_format=torch.channels_last)
    z = torch.randn(BATCH, a.z_dim, 1, 1, dtype=torch.float64, generator=g)
    return x, z, torch.randint(2**63 - 1, (model.sites,), generator=g)


def build(make_small, kind, objective):
    """The model, and what its game takes beside images, noise, seeds, route and scale."""
    if objective != "conditional":
        return make_small(kind, objective=objective), ()
    y = torch.rand(BATCH, Y_DIM, 1, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(3)).round()
    return make_small(kind, objective=objective, y_dim=Y_DIM), (y,)


def difference(ours, theirs):
    """Largest relative L2 distance over the tensors."""
    assert len(ours) == len(theirs)
    return max(float((a - b).norm() / b.norm().clamp_min(1e-300)) for a, b in zip(ours, theirs, strict=True))


def routes(model):
    return ("one", "split", "two") if model.architecture.pairs_independent else ("split", "two")


@pytest.fixture(params=REFERENCES)
def objective(request):
    return request.param


def unsettled(model):
    """Running statistics as some training may have left them."""
    generator = torch.Generator().manual_seed(2)
    for norm in model.trained_norms():
        norm.running_mean.copy_(torch.randn(norm.running_mean.shape, generator=generator))
        norm.running_var.copy_(torch.rand(norm.running_var.shape, generator=generator) + 0.5)
    return model


def test_every_route_gives_the_objectives_gradients(make_small, kind, objective):
    model, more = build(make_small, kind, objective)
    model.decoder.load_state_dict(unsettled(build(make_small, kind, objective)[0]).decoder.state_dict())
    x, z, seeds = batch(model)
    losses, to_g, to_d = REFERENCES[objective](model, x, z, seeds, *more)
    for route in routes(model):
        outcome = GAMES[objective](model, x, z, seeds, route, None, *more)
        torch.testing.assert_close(outcome.metrics[: len(losses)].double(), losses, rtol=1e-6, atol=1e-6)
        assert difference(outcome.generator, to_g) < 1e-12, route
        assert difference([*outcome.discriminator, z], [*to_d, z]) < 1e-12, route
        assert len(outcome.metrics) == len(METRICS[objective]) == len(losses) + model.players.encoder


def test_one_backward_is_wrong_where_batch_norm_mixes_pairs(make_small):
    model = make_small("norm")
    x, z, seeds = batch(model)
    _, to_g, _ = reference(model, x, z, seeds)
    assert difference(ali(model, x, z, seeds, "one").generator, to_g) > 1e-3


@pytest.mark.parametrize(
    ("kind", "dtype", "route"),
    [("norm", torch.float32, "one"), ("maxout", torch.float16, "one"), ("norm", torch.float16, "split")],
)
def test_a_step_takes_no_route_that_is_not_exact(make_small, kind, dtype, route):
    with pytest.raises(ValueError, match=f"route '{route}': .*'two' is needed"):
        Step(make_small(kind, torch.float32), learning_rate=1e-3, dtype=dtype, route=route, compile=False)


@pytest.mark.parametrize("won", [30.0, -30.0])
def test_the_generators_gradient_survives_a_won_game(make_small, kind, won):
    model = make_small(kind)
    last = model.discriminator.xz.products[-1]
    last.bias.data.fill_(won)
    last.weight.data.mul_(0.1)  # every logit stays near
    x, z, seeds = batch(model)
    _, to_g, _ = reference(model, x, z, seeds)
    outcome = ali(model, x, z, seeds, cheapest_route(model.architecture, torch.float64))
    assert difference(outcome.generator, to_g) < 1e-6


def test_statistics_come_in_the_order_of_the_running_ones(make_small, kind, objective):
    model, more = build(make_small, kind, objective)
    outcome = GAMES[objective](model, *batch(model), "two", None, *more)
    norms = model.trained_norms()
    assert [[t.shape for t in pair] for pair in outcome.statistics] == [[norm.bias.shape] * 2 for norm in norms]


def test_sigma_is_the_mean_of_exp_log_sigma(make_small):
    model = make_small("maxout")
    x, z, seeds = batch(model)
    codes = model.encoder(x, seeds, [])
    torch.testing.assert_close(
        ali(model, x, z, seeds, "one").metrics[-1].double(), codes[:, 4:].exp().mean(), rtol=1e-6, atol=0
    )


@pytest.mark.parametrize("objective", ["ali", "inverse"])
def test_a_deterministic_encoder_gives_mu(make_small, kind, objective):
    """BiGAN: z_hat is the encoder's output, half as wide, without noise."""
    model = make_small(kind, objective=objective, deterministic=True)
    x, z, seeds = batch(model)
    a = model.architecture
    if objective == "ali":
        z_hat = forward(model.encoder, a.encoder, a.slope, x, seeds)
        losses, to_g, to_d = play(model, *judge(model, x, decode(model, z, seeds), z_hat, z, seeds))
    else:
        x_tilde = decode(model, z, seeds, frozen=True).detach()
        loss = (z - forward(model.encoder, a.encoder, a.slope, x_tilde, seeds)).square().sum() / BATCH
        losses, to_g, to_d = loss.detach()[None], torch.autograd.grad(loss, model.generator_parameters()), ()
    for route in routes(model):
        outcome = GAMES[objective](model, x, z, seeds, route, None)
        torch.testing.assert_close(outcome.metrics[: len(losses)].double(), losses, rtol=1e-6, atol=1e-6)
        assert difference(outcome.generator, to_g) < 1e-12
        assert objective != "ali" or difference(outcome.discriminator, to_d) < 1e-12
        assert outcome.metrics[-1] == 0
    mu, log_sigma = model.eval().infer(x)
    assert mu.shape == log_sigma.shape == z.shape
    assert torch.equal(log_sigma.exp(), torch.zeros_like(z))


def test_scale_multiplies_every_gradient(make_small, kind, objective):
    (model, more), game = build(make_small, kind, objective), GAMES[objective]
    inputs = batch(model)
    plain, scaled = (game(model, *inputs, "two", scale, *more) for scale in (None, torch.tensor(8.0)))
    for ours, theirs in zip(
        (*scaled.generator, *scaled.discriminator), (*plain.generator, *plain.discriminator), strict=True
    ):
        assert difference([ours], [8 * theirs]) < 1e-12


def test_every_network_is_told_the_condition(make_small, kind):
    """Another y changes both gradients, the embedding's among them, which is the generator's and none of D's."""
    model, (y,) = build(make_small, kind, "conditional")
    inputs = batch(model)
    a, b = (conditional(model, *inputs, "two", None, given) for given in (y, 1 - y))
    assert difference(a.discriminator, b.discriminator) > 1e-3
    names = [name for name, _ in model.named_parameters() if not name.startswith("discriminator.")]
    embedding = [i for i, name in enumerate(names) if name.startswith("embedding.")]
    assert len(embedding) == 1
    assert len(names) == len(a.generator)
    assert all(a.generator[i].abs().max() > 0 for i in embedding)
    x, z, _ = inputs
    model.eval()
    with torch.no_grad():
        assert (model.infer(x, y)[0] - model.infer(x, 1 - y)[0]).abs().min() > 0
        assert (model.generate(z, y) - model.generate(z, 1 - y)).abs().amax() > 1e-3


def test_a_bounds_parts_against_closed_forms():
    """Codes of the prior cost nothing; each pixel off by e costs D (log(2 pi e^2) + 1) / 2."""
    x, nothing = torch.zeros(3, 5, 4, dtype=torch.float64), torch.zeros(3, 5, 2, dtype=torch.float64)
    loss, reconstruction, kl = negative_bound(x, x + 0.1, nothing, nothing)
    assert kl.tolist() == [0, 0, 0]
    assert loss.tolist() == reconstruction.tolist() == pytest.approx([2 * (math.log(2 * math.pi * 0.01) + 1)] * 3)
    assert negative_bound(x, x + 0.1, nothing + 3, nothing)[2].tolist() == pytest.approx([9.0] * 3)


def test_a_frozen_decoder_does_not_move_and_has_no_part_in_training(make_small, kind):
    for objective in ("inverse", "post-hoc"):
        model = make_small(kind, objective=objective).train()
        assert not model.decoder.training
        assert not any(p.requires_grad for p in model.decoder.parameters())
        ids = {id(p) for p in (*model.generator_parameters(), *model.discriminator_parameters())}
        assert ids == {id(p) for p in model.parameters() if p.requires_grad}
        frozen = {id(t) for t in model.decoder.buffers()}
        assert not frozen & {id(norm.running_mean) for norm in model.trained_norms()}


def test_routes_chosen(make_small):
    maxout, norm = make_small("maxout").architecture, make_small("norm").architecture
    assert cheapest_route(maxout, torch.bfloat16) == "one"
    assert cheapest_route(norm, torch.float32) == "split"
    assert cheapest_route(maxout, torch.float16) == "two"
