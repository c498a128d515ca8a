"""The games as pure functions of networks, batch and noise: losses, and every player's gradients at one point.

ALI is the paper's Algorithm 1 (section 2.5): one minibatch of M images x and M priors z; one forward of E, G and D,
where D sees the 2 M pairs as one batch; L_d and the non-saturating L_g from the same logits; the gradient of each at
the same parameters. Beside it the four objectives that section 4.5 compares it with, K+1 classes, and conditions.

Both gradients run back through D. Where D's output for a pair depends on that pair alone, dL_g/dl is a factor per
pair times dL_d/dl, so one backward serves both players (the idea: Shen et al., Training Generative Adversarial
Networks in One Stage, CVPR 2021). Batch norm mixes pairs, but only in D(x): there the head still takes one
backward, and D(x) two vector-Jacobian products, the second without weight gradients, and of the made pairs alone where
they do not meet the others yet.

All games are called alike: x [M, C, H, W] in [0, 1]; z [M, L, 1, 1] ~ N(0, I); seeds: int64 [model.sites], for eps and
the dropout masks; route: how both gradients are taken, where there is a D; scale: f32 [], multiplies every gradient
(fp16). K+1 classes take the labels of the last images as well, conditional ALI every image's condition.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ali_fast.arch import Architecture
from ali_fast.class_loss import class_loss
from ali_fast.layers import Link, Statistics
from ali_fast.model import ALI
from ali_fast.players import Objective
from csrc_triton.adversarial_loss import adversarial_loss
from csrc_triton.maps import widened
from csrc_triton.reparametrize import reparametrize

Route = Literal["one", "split", "two"]
_ADVERSARIAL = ("loss_d", "loss_g", "score_data", "score_sample")
METRICS: dict[Objective, tuple[str, ...]] = {
    "ali": (*_ADVERSARIAL, "sigma"),
    "gan": _ADVERSARIAL,
    "inverse": ("loss", "sigma"),
    "post-hoc": (*_ADVERSARIAL, "sigma"),
    "vae": ("loss", "reconstruction", "kl", "sigma"),
    "semi-supervised": (*_ADVERSARIAL, "loss_labels", "sigma"),
    "conditional": (*_ADVERSARIAL, "sigma"),
}
"""What each game tells of itself: losses and scores, then the mean sigma of q(z|x) where there is one."""


class Outcome(NamedTuple):
    """Of one game. Gradients are in the order of the model's parameter lists, times `scale` if one was given."""

    metrics: Tensor
    """f32 [n], by the names of METRICS; of ALI [5]: L_d, L_g, mean D(x, z_hat), mean D(x_tilde, z), mean sigma."""
    generator: list[Tensor]
    discriminator: list[Tensor]
    statistics: Statistics


def cheapest_route(architecture: Architecture, dtype: torch.dtype) -> Route:
    """The cheapest exact way to both gradients. In fp16 the seeds of a won game underflow: two backwards."""
    if dtype == torch.float16:
        return "two"
    return "one" if architecture.pairs_independent else "split"


def check_route(route: Route, architecture: Architecture, dtype: torch.dtype) -> None:
    """Raises ValueError for one that would not be exact: see `cheapest_route`."""
    if route == "one" and not architecture.pairs_independent:
        raise ValueError("route 'one': batch norm in D(x) mixes pairs: 'split' or 'two' is needed")
    if route != "two" and dtype == torch.float16:
        raise ValueError(f"route {route!r}: in float16 the seeds of a won game underflow: 'two' is needed")


def ali(model: ALI, x: Tensor, z: Tensor, seeds: Tensor, route: Route, scale: Tensor | None = None) -> Outcome:
    """The paper's Algorithm 1: E and G move together against D, all from one forward."""
    statistics: Statistics = []
    codes, z_joint = encode(model, x, z, seeds, statistics)
    x_tilde = model.decoder(z, seeds, statistics)
    stats, grads_d, (grad_x, grad_z) = judge(
        model, x, x_tilde, z_joint, [x_tilde, z_joint], seeds, statistics, route, scale
    )
    grads_g = _gradients([z_joint, x_tilde], model.generator_parameters(), [grad_z, grad_x])
    return Outcome(with_sigma(stats, codes), grads_g, grads_d, statistics)


def gan(model: ALI, x: Tensor, z: Tensor, seeds: Tensor, route: Route, scale: Tensor | None = None) -> Outcome:
    """ALI without codes: D sees images alone. L_g keeps ALI's term of the data, which has no gradient in G."""
    statistics: Statistics = []
    x_tilde = model.decoder(z, seeds, statistics)
    stats, grads_d, (grad_x,) = judge(model, x, x_tilde, None, [x_tilde], seeds, statistics, route, scale)
    grads_g = _gradients([x_tilde], model.generator_parameters(), [grad_x])
    return Outcome(stats, grads_g, grads_d, statistics)


def post_hoc(model: ALI, x: Tensor, z: Tensor, seeds: Tensor, route: Route, scale: Tensor | None = None) -> Outcome:
    """ALI with a frozen decoder: E and a joint D play."""
    statistics: Statistics = []
    codes, z_joint = encode(model, x, z, seeds, statistics)
    with torch.no_grad():
        x_tilde = model.decoder(z)
    stats, grads_d, (grad_z,) = judge(model, x, x_tilde, z_joint, [z_joint], seeds, statistics, route, scale)
    grads_g = _gradients([z_joint], model.generator_parameters(), [grad_z])
    return Outcome(with_sigma(stats, codes), grads_g, grads_d, statistics)


def inverse(model: ALI, x: Tensor, z: Tensor, seeds: Tensor, route: Route, scale: Tensor | None = None) -> Outcome:
    """The learned inverse mapping of a frozen decoder, E |z - z_hat|^2 with z_hat ~ q(z | G(z)). No image is used."""
    statistics: Statistics = []
    with torch.no_grad():
        x_tilde = model.decoder(z)
    codes, z_joint = encode(model, x_tilde, z, seeds, statistics)
    loss = (widened(z) - widened(z_joint[: len(z)])).square().flatten(1).sum(dim=1).mean()
    grads_g = _gradients([loss], model.generator_parameters(), _seed(loss, scale))
    return Outcome(with_sigma(loss.detach()[None], codes), grads_g, [], statistics)


def vae(model: ALI, x: Tensor, z: Tensor, seeds: Tensor, route: Route, scale: Tensor | None = None) -> Outcome:
    """The negative evidence bound, nats an image: see `negative_bound`."""
    statistics: Statistics = []
    codes, z_joint = encode(model, x, z, seeds, statistics)
    x_hat = model.decoder(z_joint[: len(x)], seeds, statistics)
    mu, log_sigma = widened(codes.flatten(1)).chunk(2, dim=1)
    losses = negative_bound(widened(x.flatten(1)), widened(x_hat.flatten(1)), mu, log_sigma)
    grads_g = _gradients([losses[0]], model.generator_parameters(), _seed(losses[0], scale))
    return Outcome(with_sigma(losses.detach(), codes), grads_g, [], statistics)


def semi_supervised(
    model: ALI, x: Tensor, z: Tensor, seeds: Tensor, route: Route, scale: Tensor | None, y: Tensor
) -> Outcome:
    """ALI with K classes beside the made pairs' own: see `class_loss`.

    x [M + n, C, H, W], the labelled images last; z [M + n, L, 1, 1], of which G takes the first M; y: int64 [n].
    """
    statistics: Statistics = []
    m = len(x) - len(y)
    codes, z_joint = encode(model, x, z, seeds, statistics)
    z_pairs = z_joint[: len(x) + m]
    x_tilde = model.decoder(z[:m], seeds, statistics)
    made = [x_tilde, z_pairs]
    stats, grads_d, (grad_x, grad_z) = judge(model, x, x_tilde, z_pairs, made, seeds, statistics, route, scale, y)
    grads_g = _gradients([z_pairs, x_tilde], model.generator_parameters(), [grad_z, grad_x])
    return Outcome(with_sigma(stats, codes), grads_g, grads_d, statistics)


def conditional(
    model: ALI, x: Tensor, z: Tensor, seeds: Tensor, route: Route, scale: Tensor | None, y: Tensor
) -> Outcome:
    """ALI of images given y [M, K, 1, 1], which goes with both kinds of pairs.

    Its embedding is the generator's: L_g's gradient reaches it through E, G and D. D's head, which takes it, treats
    pairs independently, so it comes from the same backward as z_hat's.
    """
    statistics: Statistics = []
    e = model.embedding(y)
    codes, z_joint = encode(model, x, z, seeds, statistics, e=e)
    x_tilde = model.decoder(z, seeds, statistics, e)
    e_joint = torch.cat([e, e])
    made = [x_tilde, z_joint, e_joint]
    stats, grads_d, (grad_x, grad_z, grad_e) = judge(
        model, x, x_tilde, z_joint, made, seeds, statistics, route, scale, e_joint=e_joint
    )
    grads_g = _gradients([z_joint, x_tilde, e_joint], model.generator_parameters(), [grad_z, grad_x, grad_e])
    return Outcome(with_sigma(stats, codes), grads_g, grads_d, statistics)


Game = Callable[..., Outcome]
GAMES: dict[Objective, Game] = {
    "ali": ali,
    "gan": gan,
    "inverse": inverse,
    "post-hoc": post_hoc,
    "vae": vae,
    "semi-supervised": semi_supervised,
    "conditional": conditional,
}


def negative_bound(x: Tensor, x_hat: Tensor, mu: Tensor, log_sigma: Tensor) -> Tensor:
    """[3, ...]: a VAE's loss and its two parts, -log p(x|z) and KL(q(z|x) || N(0, I)), nats a sample.

    x, x_hat: [..., M, D]; mu, log_sigma: [..., M, L]. p(x|z) = N(G(z), s^2 I) with the s that is most likely for the
    batch, s^2 = mean squared error (Rybkin et al., Simple and Effective VAE Training with Calibrated Decoders, ICML
    2021): no scale to choose, none borrowed from the data.
    """
    error = (x - x_hat).square().mean(dim=(-2, -1))
    reconstruction = x.shape[-1] / 2 * (torch.log(2 * torch.pi * error) + 1)
    kl = ((2 * log_sigma).exp() + mu.square() - 1 - 2 * log_sigma).sum(dim=-1).mean(dim=-1) / 2
    return torch.stack([reconstruction + kl, reconstruction, kl])


def encode(
    model: ALI,
    x: Tensor,
    z: Tensor,
    seeds: Tensor,
    statistics: Statistics,
    e: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """mu and log_sigma [M, 2 L, 1, 1], and [z_hat; z] [2 M, L, 1, 1] as D(z) takes them, its input dropped."""
    codes = model.codes(x, seeds, statistics, e)
    z_joint = reparametrize(
        codes,
        z,
        dropout=model.z_dropout,
        seeds=seeds,
        slot=model.noise_slot,
        backend=model.kernels.reparametrize,
    )
    return codes, z_joint


def judge(
    model: ALI,
    x: Tensor,
    x_tilde: Tensor,
    z_joint: Tensor | None,
    made: Sequence[Tensor],
    seeds: Tensor,
    statistics: Statistics,
    route: Route,
    scale: Tensor | None,
    y: Tensor | None = None,
    e_joint: Tensor | None = None,
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """D on the joint batch: the METRICS but sigma, D's gradients, and L_g's at what the other player `made`.

    made: those of x_tilde, z_joint and e_joint that it is to learn from, in this order. y: the labels of the last of x,
    where D has classes. e_joint: each pair's embedded condition [2 M, 256, 1, 1], where D takes one.
    """
    d = model.discriminator
    learns = any(tensor is x_tilde for tensor in made)
    assert not learns or made[0] is x_tilde
    links: list[Link] = []
    h = d.features(torch.cat([x, x_tilde]), seeds, statistics, links if learns else None)
    logits = d.head(h, z_joint, seeds, e_joint)
    if y is None:
        loss = adversarial_loss(logits.detach(), scale=scale, backend=model.kernels.adversarial_loss)
    else:
        loss = class_loss(logits.detach(), y, scale)
    factors = [loss.factor[-len(tensor) :] for tensor in made]

    theta_d = model.discriminator_parameters()
    if route != "split":
        links = links if route == "two" else links[:1]  # L_d's own backward has the others' y's gradients
        inputs = [links[-1].y, *made[1:]] if learns else made
        if route == "two":
            grads_d = _gradients([logits], theta_d, [loss.seed_d], retain_graph=True)
            grads_made = _gradients([logits], inputs, [loss.seed_g])
        else:
            gradients = _gradients([logits], [*theta_d, *inputs], [loss.seed_d])
            grads_d, grads_made = gradients[: len(theta_d)], gradients[len(theta_d) :]
        if learns:
            grads_made[0] = _down(links, grads_made[0], x_tilde)
        if route == "one":
            grads_made = [_times(g, factor) for g, factor in zip(grads_made, factors, strict=True)]
        return loss.stats, grads_d, grads_made
    head, made_for_head = d.head_parameters(), [tensor for tensor in made if tensor is not x_tilde]
    grad_h, *gradients = _gradients([logits], [h, *head, *made_for_head], [loss.seed_d])
    grads_d = _gradients([h], list(d.x.parameters()), [grad_h], retain_graph=learns) + gradients[: len(head)]
    grads_made = []
    if learns:
        (grad_y,) = _gradients([h], [links[-1].y], [_times(grad_h, loss.factor)])
        grads_made = [_down(links, grad_y, x_tilde)]
    return loss.stats, grads_d, grads_made + [_times(g, loss.factor) for g in gradients[len(head) :]]


def _down(links: Sequence[Link], gradient: Tensor, x_tilde: Tensor) -> Tensor:
    """x_tilde's gradient from that at the last link's y: image by image, so of the made pairs alone.

    Autograd would take the gradients of these products for all pairs: half of celeba's largest convolution for nobody.
    What stands between two of them is still taken of all, the others' share being zeros: to leave that out as well
    took as many bytes and two kernels more.
    """
    made = len(x_tilde)
    sources = [x_tilde, *(link.y for link in links[:-1])]
    for link, source in zip(reversed(links), reversed(sources), strict=True):
        gradient = link.gradient(gradient[-made:])
        (gradient,) = _gradients([link.h[-made:]], [source], [gradient])
    return gradient


def _gradients(outputs: Sequence[Tensor], inputs: Sequence[Tensor], seeds: Sequence[Tensor], **kw) -> list[Tensor]:
    return list(torch.autograd.grad(outputs, inputs, seeds, **kw))


def _times(gradient: Tensor, factor: Tensor) -> Tensor:
    """Each pair's gradient [n, C, H, W] times its own factor [n]."""
    return (gradient.to(factor.dtype) * factor[:, None, None, None]).to(gradient.dtype)


def _seed(loss: Tensor, scale: Tensor | None) -> list[Tensor]:
    return [torch.ones_like(loss) if scale is None else scale.to(loss.dtype)]


def mean_sigma(codes: Tensor) -> Tensor:
    """f32 [], of mu and log_sigma [M, 2 L, 1, 1]."""
    return codes.detach()[:, codes.shape[1] // 2 :].float().exp().mean()


def with_sigma(stats: Tensor, codes: Tensor) -> Tensor:
    """A game's metrics: f32 [n], and the mean sigma behind them."""
    return torch.cat([stats, mean_sigma(codes)[None]])
