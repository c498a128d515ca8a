"""All ops in one small game, its two autograd.grad calls traced: fullgraph, through Inductor, equal to eager."""

import pytest
import torch
import torch.nn.functional as F
from comparing import some_seeds

from csrc_triton.adversarial_loss import adversarial_loss
from csrc_triton.batch_norm import batch_norm
from csrc_triton.bias_act import bias_act
from csrc_triton.maxout import maxout
from csrc_triton.reparametrize import reparametrize

N, CHANNELS, UNITS = 6, 4, 5
SHAPES = {
    "encoder": (8, CHANNELS, 3, 3),
    "gamma": (8,),
    "beta": (8,),
    "codes": (2 * UNITS, 8, 1, 1),
    "decoder": (UNITS, CHANNELS, 3, 3),
    "d_x": (16, CHANNELS, 3, 3),
    "d_x_bias": (16,),
    "d_z": (8, UNITS, 1, 1),
    "d_xz": (1, 16, 1, 1),
}


def play(p, x, z, seeds, backend):
    """Losses, E's and G's gradients of L_g, D's of L_d, by one backward through D."""
    stream = dict(seeds=seeds, backend=backend)
    h, mean, var = batch_norm(F.conv2d(x, p["encoder"]), p["gamma"], p["beta"], 1e-4, 0.1, backend=backend)
    z_joint = reparametrize(F.conv2d(h, p["codes"]), z, dropout=0.2, slot=0, **stream)
    x_tilde = F.conv_transpose2d(z, p["decoder"])
    pairs = bias_act(torch.cat([x, x_tilde]), dropout=0.2, slot=1, **stream)
    d_x = maxout(F.conv2d(pairs, p["d_x"]), p["d_x_bias"], dropout=0.5, slot=2, **stream)
    d_z = bias_act(F.conv2d(z_joint, p["d_z"]), None, 0.1, dropout=0.2, slot=3, **stream)
    logits = F.conv2d(torch.cat([d_x, d_z], dim=1), p["d_xz"]).flatten()
    loss = adversarial_loss(logits, backend=backend)
    of_d = [p[name] for name in ("d_x", "d_x_bias", "d_z", "d_xz")]
    of_g = [p[name] for name in ("encoder", "gamma", "beta", "codes", "decoder")]
    *to_d, to_x, to_z = torch.autograd.grad([logits], [*of_d, x_tilde, z_joint], [loss.seed_d])
    factor = loss.factor[:, None, None, None]
    to_g = torch.autograd.grad([z_joint, x_tilde], of_g, [to_z * factor, to_x * factor[N:]])
    return loss.stats, mean, var, *to_d, *to_g


@pytest.fixture
def game():
    torch.manual_seed(0)
    parameters = {name: (torch.randn(shape) * 0.3).requires_grad_() for name, shape in SHAPES.items()}
    return parameters, torch.rand(N, CHANNELS, 3, 3), torch.randn(N, UNITS, 1, 1), some_seeds("cpu")


@pytest.mark.parametrize(("backend", "compiler"), [("eager", "aot_eager"), ("triton", "inductor")])
@torch._dynamo.config.patch(trace_autograd_ops=True)
def test_compiled_whole(game, backend, compiler):
    want = play(*game, "eager")
    got = torch.compile(play, fullgraph=True, backend=compiler)(*game, backend)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5 * float(b.abs().max()))
    other = torch.compile(play, fullgraph=True, backend=compiler)(*game[:3], game[3] + 1, backend)
    assert not torch.equal(got[0], other[0]), "new seeds, new noise"


def test_backends_agree_in_eager(game):
    for a, b in zip(play(*game, "triton"), play(*game, "eager"), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5 * float(b.abs().max()))
