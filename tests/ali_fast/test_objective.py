"""Both players' gradients against the paper's algorithm, written out plainly from the tables."""

import math

import pytest
import torch
import torch.nn.functional as F

from ali_fast.objective import ali, cheapest_route
from csrc_triton.bias_act import bias_act
from csrc_triton.reparametrize import reparametrize

BATCH = 7


def mask(shape, rate, seeds, slot):
    """What dropout multiplies by at a site: the ops' own stream, which their own tests hold to its law."""
    if not rate:
        return torch.ones(shape, dtype=torch.float64)
    ones = torch.ones(shape, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
    return bias_act(ones, dropout=rate, seeds=seeds, slot=slot, backend="eager")


def forward(stack, table, slope, h, seeds, dropout_after=0.0):
    """One table, row by row, with torch's own layers."""
    for i, row in enumerate(table):
        product, activation = stack.products[i], stack.activations[i]
        convolve = F.conv2d if row.operation == "conv" else F.conv_transpose2d
        h = convolve(h, product.weight, product.bias, row.stride)
        if row.norm:
            h = F.batch_norm(h, None, None, activation.weight, activation.bias, True, 0.0, 1e-4)
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


def reference(model, x, z, seeds):
    """Algorithm 1 with two whole backwards from log-sigmoids. Returns losses and both gradients."""
    a, d = model.architecture, model.discriminator
    m = len(x)
    mu, log_sigma = forward(model.encoder, a.encoder, a.slope, x, seeds).chunk(2, 1)
    nothing = torch.zeros(m, 2 * a.z_dim, 1, 1, dtype=torch.float64)
    eps = reparametrize(nothing, z, seeds=seeds, slot=model.noise_slot, backend="eager")[:m]
    ones = torch.ones_like(z)
    kept = reparametrize(
        torch.cat([ones, torch.full_like(ones, -math.inf)], 1),
        ones,
        dropout=model.z_dropout,
        seeds=seeds,
        slot=model.noise_slot,
        backend="eager",
    )
    z_hat = mu + log_sigma.exp() * eps
    x_tilde = forward(model.decoder, a.decoder, a.slope, z, seeds)
    x_joint = torch.cat([x, x_tilde])
    x_joint = x_joint * mask(x_joint.shape, a.discriminator_x[0].dropout, seeds, d.input_slot)
    joint = a.discriminator_xz[0].dropout
    h_x = forward(d.x, a.discriminator_x, a.slope, x_joint, seeds, joint)
    h_z = forward(d.z, a.discriminator_z, a.slope, torch.cat([z_hat, z]) * kept, seeds, joint)
    logits = forward(d.xz, a.discriminator_xz, a.slope, torch.cat([h_x, h_z], 1), seeds).flatten()
    l_q, l_p = logits[:m], logits[m:]
    l_d = -(F.logsigmoid(l_q).mean() + F.logsigmoid(-l_p).mean())
    l_g = -(F.logsigmoid(-l_q).mean() + F.logsigmoid(l_p).mean())
    to_d = torch.autograd.grad(l_d, model.discriminator_parameters(), retain_graph=True)
    to_g = torch.autograd.grad(l_g, model.generator_parameters())
    scores = torch.sigmoid(l_q).mean(), torch.sigmoid(l_p).mean()
    return torch.stack([l_d, l_g, *scores]).detach(), to_g, to_d


def batch(model, seed=5):
    a, g = model.architecture, torch.Generator().manual_seed(seed)
    shape = (BATCH, a.image_channels, a.image_size, a.image_size)
    x = torch.rand(shape, dtype=torch.float64, generator=g).contiguous(memory_format=torch.channels_last)
    z = torch.randn(BATCH, a.z_dim, 1, 1, dtype=torch.float64, generator=g)
    return x, z, torch.randint(2**63 - 1, (model.sites,), generator=g)


def difference(ours, theirs):
    """Largest relative L2 distance over the tensors."""
    assert len(ours) == len(theirs)
    return max(float((a - b).norm() / b.norm().clamp_min(1e-300)) for a, b in zip(ours, theirs, strict=True))


def routes(model):
    return ("one", "split", "two") if model.architecture.pairs_independent else ("split", "two")


def test_every_route_gives_the_papers_gradients(make_small, kind):
    model = make_small(kind)
    x, z, seeds = batch(model)
    losses, to_g, to_d = reference(model, x, z, seeds)
    for route in routes(model):
        outcome = ali(model, x, z, seeds, route)
        torch.testing.assert_close(outcome.losses.double(), losses, rtol=1e-6, atol=1e-6)
        assert difference(outcome.generator, to_g) < 1e-12, route
        assert difference(outcome.discriminator, to_d) < 1e-12, route


def test_one_backward_is_wrong_where_batch_norm_mixes_pairs(make_small):
    model = make_small("norm")
    x, z, seeds = batch(model)
    _, to_g, _ = reference(model, x, z, seeds)
    assert difference(ali(model, x, z, seeds, "one").generator, to_g) > 1e-3


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


def test_statistics_come_in_the_order_of_the_running_ones(make_small, kind):
    model = make_small(kind)
    outcome = ali(model, *batch(model), "two")
    means, variances = model.running_statistics()
    assert [m.shape for m, _ in outcome.statistics] == [m.shape for m in means] == [v.shape for v in variances]


def test_sigma_is_the_mean_of_exp_log_sigma(make_small):
    model = make_small("maxout")
    x, z, seeds = batch(model)
    codes = model.encoder(x, seeds, [])
    torch.testing.assert_close(
        ali(model, x, z, seeds, "one").sigma.double(), codes[:, 4:].exp().mean(), rtol=1e-6, atol=0
    )


def test_scale_multiplies_both_gradients(make_small, kind):
    model = make_small(kind)
    inputs = batch(model)
    plain, scaled = ali(model, *inputs, "two"), ali(model, *inputs, "two", torch.tensor(8.0))
    assert difference(scaled.generator, [8 * g for g in plain.generator]) < 1e-12
    assert difference(scaled.discriminator, [8 * g for g in plain.discriminator]) < 1e-12


def test_routes_chosen(make_small):
    maxout, norm = make_small("maxout").architecture, make_small("norm").architecture
    assert cheapest_route(maxout, torch.bfloat16) == "one"
    assert cheapest_route(norm, torch.float32) == "split"
    assert cheapest_route(maxout, torch.float16) == "two"
