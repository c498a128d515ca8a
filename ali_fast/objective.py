"""The game as a pure function of networks, batch and noise: losses, and both players' gradients at one point.

The paper's Algorithm 1 (section 2.5): one minibatch of M images x and M priors z; one forward of E, G and D, where
D sees the 2 M pairs as one batch; L_d and the non-saturating L_g from the same logits; the gradient of each at the
same parameters.

Both gradients run back through D. Where D's output for a pair depends on that pair alone, dL_g/dl is a factor per
pair times dL_d/dl, so one backward serves both players (the idea: Shen et al., Training Generative Adversarial
Networks in One Stage, CVPR 2021). Batch norm mixes pairs, but only in D(x): there the head still takes one
backward, and D(x) two vector-Jacobian products, the second without weight gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ali_fast.arch import Architecture
from ali_fast.layers import Statistics
from ali_fast.model import ALI
from csrc_triton.adversarial_loss import adversarial_loss
from csrc_triton.reparametrize import reparametrize

Route = Literal["one", "split", "two"]


class Outcome(NamedTuple):
    """Of one game. Gradients are in the order of the model's parameter lists, times `scale` if one was given."""

    losses: Tensor
    """f32 [4]: L_d, L_g, mean D(x, z_hat), mean D(x_tilde, z)."""
    sigma: Tensor
    """f32 []: mean sigma of q(z|x)."""
    generator: list[Tensor]
    discriminator: list[Tensor]
    statistics: Statistics


def cheapest_route(architecture: Architecture, dtype: torch.dtype) -> Route:
    """The cheapest exact way to both gradients. In fp16 the seeds of a won game underflow: two backwards."""
    if dtype == torch.float16:
        return "two"
    return "one" if architecture.pairs_independent else "split"


def _gradients(outputs: Sequence[Tensor], inputs: Sequence[Tensor], seeds: Sequence[Tensor], **kw) -> list[Tensor]:
    return list(torch.autograd.grad(outputs, inputs, seeds, **kw))


def _times(gradient: Tensor, factor: Tensor) -> Tensor:
    """Each pair's gradient [n, C, H, W] times its own factor [n]."""
    return (gradient.to(factor.dtype) * factor[:, None, None, None]).to(gradient.dtype)


def ali(model: ALI, x: Tensor, z: Tensor, seeds: Tensor, route: Route, scale: Tensor | None = None) -> Outcome:
    """Play one game on x [M, C, H, W] in [0, 1] and z [M, L, 1, 1] ~ N(0, I).

    seeds: int64 [model.sites], for eps and the dropout masks. scale: f32 [], multiplies every gradient (fp16).
    """
    statistics: Statistics = []
    d, m = model.discriminator, len(x)
    codes = model.encoder(x, seeds, statistics)
    z_joint = reparametrize(
        codes,
        z,
        dropout=model.z_dropout,
        seeds=seeds,
        slot=model.noise_slot,
        backend=model.kernels.reparametrize,
    )
    x_tilde = model.decoder(z, seeds, statistics)
    h = d.features(torch.cat([x, x_tilde]), seeds, statistics)
    logits = d.head(h, z_joint, seeds)
    loss = adversarial_loss(logits.detach(), scale=scale, backend=model.kernels.adversarial_loss)

    theta_d = model.discriminator_parameters()
    if route == "one":
        *to_d, to_x, to_z = _gradients([logits], [*theta_d, x_tilde, z_joint], [loss.seed_d])
        to_x, to_z = _times(to_x, loss.factor[m:]), _times(to_z, loss.factor)
    elif route == "split":
        theta_x, theta_head = list(d.x.parameters()), [*d.z.parameters(), *d.xz.parameters()]
        *to_head, to_h, to_z = _gradients([logits], [*theta_head, h, z_joint], [loss.seed_d])
        to_d = _gradients([h], theta_x, [to_h], retain_graph=True) + to_head
        (to_x,) = _gradients([h], [x_tilde], [_times(to_h, loss.factor)])
        to_z = _times(to_z, loss.factor)
    else:
        to_d = _gradients([logits], theta_d, [loss.seed_d], retain_graph=True)
        to_x, to_z = _gradients([logits], [x_tilde, z_joint], [loss.seed_g])
    to_g = _gradients([z_joint, x_tilde], model.generator_parameters(), [to_z, to_x])

    sigma = codes.detach()[:, codes.shape[1] // 2 :].float().exp().mean()
    return Outcome(loss.stats, sigma, to_g, to_d, statistics)
