"""One small game that uses every op, its gradients by autograd.grad: traced whole on a CPU and on a GPU."""

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


def new_game(device):
    """Parameters, x, z, seeds: the same on every device."""
    generator = torch.Generator().manual_seed(0)
    parameters = {
        name: (torch.randn(shape, generator=generator) * 0.3).to(device).requires_grad_()
        for name, shape in SHAPES.items()
    }
    x = torch.rand(N, CHANNELS, 3, 3, generator=generator).to(device)
    return parameters, x, torch.randn(N, UNITS, 1, 1, generator=generator).to(device), some_seeds(device)


def play(p, x, z, seeds, backend):
    """Losses, batch statistics, D's gradients of L_d, E's and G's of L_g, by one backward through D."""
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
