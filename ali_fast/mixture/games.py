"""The five objectives of section 4.5 as pure functions: ALI, GAN, post-hoc inference, the inverse mapping, and the VAE.

They know networks as functions and parameters as lists, so any network can play, also a stack of R members: then the
logits are [R, 2M], each member's M data pairs before its M sample pairs. Without members, [2M]. Losses come per
member, and so do gradients, since no member's loss depends on another's parameters.

Every discriminator here treats pairs independently (no batch norm), so one backward serves both players: see
ali_fast.objective. The gradients of both are taken at the same point, for simultaneous updates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from ali_fast.objective import negative_bound
from csrc_triton.adversarial_loss import AdversarialLoss, adversarial_loss

Function = Callable[[Tensor], Tensor]
ADVERSARIAL_LOSSES = ("loss_d", "loss_g", "score_data", "score_sample")
INVERSE_LOSSES = ("loss",)
VAE_LOSSES = ("loss", "reconstruction", "kl")


class Judged(NamedTuple):
    """What D says of the joint batch: logits [R, 2M], and the pairs that it saw, [R, 2M, D + L]."""

    logits: Tensor
    pairs: Tensor


class Outcome(NamedTuple):
    """Of one game: losses [R, n] by the names above, gradients in the order of the parameters given."""

    losses: Tensor
    generator: list[Tensor]
    discriminator: list[Tensor]


def ali(
    encode: Function,
    decode: Function,
    judge: Callable[[Tensor, Tensor, Tensor, Tensor], Judged],
    theta_g: Sequence[Tensor],
    theta_d: Sequence[Tensor],
    x: Tensor,
    z: Tensor,
    penalty: Tensor | None = None,
) -> Outcome:
    """Algorithm 1 of the paper. judge(x, x_tilde, z_hat, z) judges the joint batch; theta_g: E's and G's."""
    z_hat, x_tilde = encode(x), decode(z)
    return _play(judge(x, x_tilde, z_hat, z), theta_g, theta_d, penalty, of_data=z_hat, of_samples=x_tilde)


def gan(
    decode: Function,
    judge: Callable[[Tensor, Tensor], Judged],
    theta_g: Sequence[Tensor],
    theta_d: Sequence[Tensor],
    x: Tensor,
    z: Tensor,
    penalty: Tensor | None = None,
) -> Outcome:
    """The same game without codes: judge(x, x_tilde). L_g has the data's term too, as the authors' code, which
    no parameter of G feels."""
    x_tilde = decode(z)
    return _play(judge(x, x_tilde), theta_g, theta_d, penalty, of_data=None, of_samples=x_tilde)


def post_hoc(
    encode: Function,
    decode: Function,
    judge: Callable[[Tensor, Tensor, Tensor, Tensor], Judged],
    theta_e: Sequence[Tensor],
    theta_d: Sequence[Tensor],
    x: Tensor,
    z: Tensor,
    penalty: Tensor | None = None,
) -> Outcome:
    """ALI with a frozen G: E and a joint D play."""
    z_hat = encode(x)
    with torch.no_grad():
        x_tilde = decode(z)
    return _play(judge(x, x_tilde, z_hat, z), theta_e, theta_d, penalty, of_data=z_hat, of_samples=None)


def inverse(encode: Function, decode: Function, theta_e: Sequence[Tensor], z: Tensor) -> Outcome:
    """E_z |z - E(G(z))|^2, G frozen; z [..., M, L]."""
    with torch.no_grad():
        x_tilde = decode(z)
    loss = (z - encode(x_tilde)).square().sum(dim=-1).mean(dim=-1)
    return Outcome(loss.detach()[..., None], _gradients(loss.sum(), theta_e), [])


def vae(
    encode: Callable[[Tensor], tuple[Tensor, Tensor]],
    decode: Function,
    theta: Sequence[Tensor],
    x: Tensor,
    eps: Tensor,
    kl_weight: Tensor,
) -> Outcome:
    """The negative evidence bound (`ali_fast.objective.negative_bound`); encode gives mu and log_sigma [..., M, L],
    x is [..., M, D]. The gradient is that of the bound with its KL times kl_weight []; the losses are the bound's."""
    mu, log_sigma = encode(x)
    x_hat = decode(mu + log_sigma.exp() * eps)
    losses = negative_bound(x, x_hat, mu, log_sigma)
    _, reconstruction, kl = losses
    return Outcome(losses.movedim(0, -1).detach(), _gradients((reconstruction + kl_weight * kl).sum(), theta), [])


def _play(
    judged: Judged,
    theta_g: Sequence[Tensor],
    theta_d: Sequence[Tensor],
    penalty: Tensor | None,
    *,
    of_data: Tensor | None,
    of_samples: Tensor | None,
) -> Outcome:
    """Both gradients by one backward through D; theta_g made `of_data` in data pairs, `of_samples` in sample pairs.

    penalty: D's weight [R, 1, 1] of the pairs' mean squared slope, which it pays beside its loss.
    """
    logits = judged.logits
    damping = [] if penalty is None else _steepness_gradients(judged, theta_d, penalty)
    m = logits.shape[-1] // 2
    loss = _losses(logits.detach())
    moves = [(of_data, loss.factor[..., :m]), (of_samples, loss.factor[..., m:])]
    made, factors = zip(*[(tensor, factor) for tensor, factor in moves if tensor is not None], strict=True)
    gradients = torch.autograd.grad([logits], [*theta_d, *made], [loss.seed_d])
    to_d, to_made = list(gradients[: len(theta_d)]), gradients[len(theta_d) :]
    if damping:
        to_d = [g if more is None else g + more for g, more in zip(to_d, damping, strict=True)]
    seeds = [_times(gradient, factor) for gradient, factor in zip(to_made, factors, strict=True)]
    to_g = list(torch.autograd.grad(made, theta_g, seeds))
    return Outcome(loss.stats, to_g, to_d)


def _steepness_gradients(judged: Judged, theta_d: Sequence[Tensor], weight: Tensor) -> Sequence[Tensor | None]:
    """Of weight / 2 E|dl/d(x, z)|^2 over all pairs: Mescheder et al., ICML 2018, R1 and R2 together, since in ALI both
    kinds of pairs move. None for what no slope depends on, as D's last bias."""
    (slopes,) = torch.autograd.grad([judged.logits.sum()], [judged.pairs], create_graph=True)
    steepness = slopes.square().sum(dim=-1, keepdim=True).mean(dim=-2, keepdim=True)
    return torch.autograd.grad([(weight / 2 * steepness).sum()], theta_d, retain_graph=True, allow_unused=True)


def _losses(logits: Tensor) -> AdversarialLoss:
    """Of logits [2M], or of each member's of [R, 2M]."""
    of_one = partial(adversarial_loss, backend="eager")
    return of_one(logits) if logits.dim() == 1 else torch.func.vmap(of_one)(logits)


def _times(gradient: Tensor, factor: Tensor) -> Tensor:
    """Each pair's gradient [..., M, *] times its own factor [..., M]."""
    return gradient * factor.reshape(*factor.shape, *[1] * (gradient.dim() - factor.dim()))


def _gradients(loss: Tensor, theta: Sequence[Tensor]) -> list[Tensor]:
    return list(torch.autograd.grad(loss, theta))
