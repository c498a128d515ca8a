"""What a game of R members comes to: losses per member, and every player's gradients at one point.

No member's loss depends on another's parameters, so one backward of the sum is each member's own. Every discriminator
here treats pairs independently (no batch norm), so one backward serves both players: see ali_fast.objective. The
gradients of both are taken at the same point, for simultaneous updates.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from csrc_triton.adversarial_loss import adversarial_loss


class Judged(NamedTuple):
    """What D says of the joint batch, each member's M data pairs before its M sample pairs."""

    logits: Tensor
    """[R, 2M]."""
    pairs: Tensor
    """[R, 2M, D + L]: those that it saw; of a GAN points alone, [R, 2M, D]."""


class Outcome(NamedTuple):
    """Of one game. Gradients are in the order of the parameters given."""

    losses: Tensor
    """[R, n], by the names of Model.losses."""
    generator: list[Tensor]
    discriminator: list[Tensor]


def play(
    judged: Judged,
    theta_g: Sequence[Tensor],
    theta_d: Sequence[Tensor],
    penalty: Tensor | None,
    *,
    of_data: Tensor,
    of_samples: Tensor,
) -> Outcome:
    """An adversarial game: both players' gradients by one backward through D.

    of_data, of_samples: [R, M, *], what theta_g may have made in data pairs and in sample pairs. It answers for those
    that require a gradient: data and what a frozen network made do not.
    penalty: weight [R, 1, 1] of the gradient penalty added to D's loss.
    """
    logits = judged.logits
    damping = [] if penalty is None else _steepness_gradients(judged, theta_d, penalty)
    m = logits.shape[1] // 2
    loss = torch.func.vmap(partial(adversarial_loss, backend="eager"))(logits.detach())
    halves = (of_data, loss.factor[:, :m]), (of_samples, loss.factor[:, m:])
    made, factors = zip(*[(tensor, factor) for tensor, factor in halves if tensor.requires_grad], strict=True)
    gradients = torch.autograd.grad([logits], [*theta_d, *made], [loss.seed_d])
    to_d, to_made = list(gradients[: len(theta_d)]), gradients[len(theta_d) :]
    if damping:
        to_d = [g if more is None else g + more for g, more in zip(to_d, damping, strict=True)]
    seeds = [gradient * factor[:, :, None] for gradient, factor in zip(to_made, factors, strict=True)]
    to_g = list(torch.autograd.grad(made, theta_g, seeds))
    return Outcome(loss.stats, to_g, to_d)


def minimize(loss: Tensor, losses: Tensor, theta: Sequence[Tensor]) -> Outcome:
    """A game without an opponent: the gradients of loss [R]. losses [R, n] are what the log tells."""
    return Outcome(losses.detach(), list(torch.autograd.grad(loss.sum(), theta)), [])


def _steepness_gradients(judged: Judged, theta_d: Sequence[Tensor], weight: Tensor) -> Sequence[Tensor | None]:
    """Of weight / 2 E|dl/d(x, z)|^2 over all pairs: Mescheder et al., ICML 2018, R1 and R2 together, since in ALI both
    kinds of pairs move. None for what no slope depends on, as D's last bias."""
    (slopes,) = torch.autograd.grad([judged.logits.sum()], [judged.pairs], create_graph=True)
    steepness = slopes.square().sum(dim=-1, keepdim=True).mean(dim=-2, keepdim=True)
    return torch.autograd.grad([(weight / 2 * steepness).sum()], theta_d, retain_graph=True, allow_unused=True)
