"""The five models of section 4.5, R members each: which networks, which game, how to encode and decode.

Points and codes are [R, B, 2]. `play` is one game in training mode. In evaluation mode `encode` and `decode` take no
`statistics`: see nets.Network.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ali_fast.mixture import games, nets
from ali_fast.mixture.games import Judged, Outcome
from ali_fast.mixture.nets import Network, Sizes, Statistics
from ali_fast.objective import METRICS, negative_bound


class GameInputs(NamedTuple):
    """What one game is played with, beside the networks."""

    x: Tensor
    """[R, B, 2]: data."""
    z: Tensor
    """[R, B, 2]: codes from the prior."""
    eps: Tensor
    """[R, B, noise_dims]: the encoder's noise, ~ N(0, I)."""
    blur: Tensor | None
    """[R, 2B, 2]: noise added to the points that D sees; None for none."""
    penalty: Tensor | None
    """[R, 1, 1]: weight of the gradient penalty added to D's loss; None for none."""
    kl_weight: Tensor
    """[]: of the KL in a VAE's loss."""


class Model(nn.Module):
    """What the five have in common."""

    losses: tuple[str, ...]
    decoder: Network

    def __init__(self, members: int, sizes: Sizes):
        super().__init__()
        self.members, self.sizes = members, sizes
        self.decoder = nets.decoder(members, sizes)

    @property
    def noise_dims(self) -> int:
        """Dimensions of the encoder's noise eps (ALI concatenates it to x)."""
        return self.sizes.x

    def play(self, inputs: GameInputs, statistics: Statistics) -> Outcome:
        raise NotImplementedError

    def encode(self, x: Tensor, eps: Tensor) -> Tensor:
        """A sample of q(z | x)."""
        raise NotImplementedError

    def decode(self, z: Tensor, statistics: Statistics | None = None) -> Tensor:
        return self.decoder(z, statistics)

    def generator_parameters(self) -> list[nn.Parameter]:
        """Of all trained networks but the discriminator."""
        return [p for name, p in self.named_parameters() if p.requires_grad and not name.startswith("discriminator.")]

    def discriminator_parameters(self) -> list[nn.Parameter]:
        return [p for name, p in self.named_parameters() if name.startswith("discriminator.")]

    def initialize(self, seeds: list[int], stds: list[float]) -> None:
        """Member r's weights ~ N(0, stds[r]^2) from seeds[r] alone: a member does not depend on its neighbours."""
        with torch.no_grad():
            for r, (seed, std) in enumerate(zip(seeds, stds, strict=True)):
                generator = torch.Generator().manual_seed(seed)
                for module in self.modules():
                    if isinstance(module, nets.Layer):
                        weight = torch.empty(module.weight.shape[1:])
                        module.weight[r].copy_(weight.normal_(0, std, generator=generator))


def _points(x: Tensor, x_tilde: Tensor, blur: Tensor | None) -> Tensor:
    """The joint batch's points [R, 2B, 2], as D sees them."""
    points = torch.cat([x, x_tilde], dim=1)
    return points if blur is None else points + blur


class Encoding(Model):
    """A model with ALI's encoder of [x, eps]."""

    def __init__(self, members: int, sizes: Sizes):
        super().__init__(members, sizes)
        self.encoder = nets.encoder(members, sizes)

    def encode(self, x: Tensor, eps: Tensor, statistics: Statistics | None = None) -> Tensor:
        return self.encoder(torch.cat([x, eps], dim=2), statistics)


class Ali(Encoding):
    """Algorithm 1 of the paper."""

    losses = METRICS["gan"]

    def __init__(self, members: int, sizes: Sizes):
        super().__init__(members, sizes)
        self.discriminator = nets.discriminator(members, sizes.x + sizes.z, sizes)

    def play(self, inputs: GameInputs, statistics: Statistics) -> Outcome:
        z_hat, x_tilde = self.encode(inputs.x, inputs.eps, statistics), self.decode(inputs.z, statistics)
        judged = self.judge(_points(inputs.x, x_tilde, inputs.blur), torch.cat([z_hat, inputs.z], dim=1))
        theta_g, theta_d = self.generator_parameters(), self.discriminator_parameters()
        return games.play(judged, theta_g, theta_d, inputs.penalty, of_data=z_hat, of_samples=x_tilde)

    def judge(self, x: Tensor, z: Tensor) -> Judged:
        pairs = torch.cat([x, z], dim=2)
        return Judged(self.discriminator(pairs)[:, :, 0], pairs)


class PostHoc(Ali):
    """Post-hoc inference: ALI's game against a GAN's decoder, which stays as it is."""

    def __init__(self, members: int, sizes: Sizes):
        super().__init__(members, sizes)
        self.decoder.freeze()


class Gan(Model):
    """ALI without codes. L_g has the data's term too, as in the authors' code, which no parameter of G feels."""

    losses = METRICS["gan"]

    def __init__(self, members: int, sizes: Sizes):
        super().__init__(members, sizes)
        self.discriminator = nets.discriminator(members, sizes.x, sizes)

    def play(self, inputs: GameInputs, statistics: Statistics) -> Outcome:
        x_tilde = self.decode(inputs.z, statistics)
        judged = self.judge(_points(inputs.x, x_tilde, inputs.blur))
        theta_g, theta_d = self.generator_parameters(), self.discriminator_parameters()
        return games.play(judged, theta_g, theta_d, inputs.penalty, of_data=inputs.x, of_samples=x_tilde)

    def judge(self, x: Tensor) -> Judged:
        return Judged(self.discriminator(x)[:, :, 0], x)


class Inverse(Encoding):
    """The learned inverse mapping, E_z |z - E(G(z))|^2, of a GAN's decoder, which stays as it is."""

    losses = ("loss",)

    def __init__(self, members: int, sizes: Sizes):
        super().__init__(members, sizes)
        self.decoder.freeze()

    def play(self, inputs: GameInputs, statistics: Statistics) -> Outcome:
        z_hat = self.encode(self.decode(inputs.z), inputs.eps, statistics)
        loss = (inputs.z - z_hat).square().sum(dim=2).mean(dim=1)
        return games.minimize(loss, loss[:, None], self.generator_parameters())


class Vae(Model):
    """The negative evidence bound (`ali_fast.objective.negative_bound`). Its losses are the bound's; its gradient is
    that of the bound with the KL times kl_weight."""

    losses = ("loss", "reconstruction", "kl")

    def __init__(self, members: int, sizes: Sizes):
        super().__init__(members, sizes)
        self.encoder = nets.gaussian_encoder(members, sizes)

    @property
    def noise_dims(self) -> int:
        return self.sizes.z

    def posterior(self, x: Tensor, statistics: Statistics | None = None) -> tuple[Tensor, Tensor]:
        """mu and log_sigma of q(z | x)."""
        mu, log_sigma = self.encoder(x, statistics).chunk(2, dim=2)
        return mu, log_sigma

    def encode(self, x: Tensor, eps: Tensor) -> Tensor:
        mu, log_sigma = self.posterior(x)
        return mu + log_sigma.exp() * eps

    def play(self, inputs: GameInputs, statistics: Statistics) -> Outcome:
        mu, log_sigma = self.posterior(inputs.x, statistics)
        x_hat = self.decode(mu + log_sigma.exp() * inputs.eps, statistics)
        losses = negative_bound(inputs.x, x_hat, mu, log_sigma)
        _, reconstruction, kl = losses
        return games.minimize(reconstruction + inputs.kl_weight * kl, losses.T, self.generator_parameters())


MODELS: dict[str, type[Model]] = {"ali": Ali, "gan": Gan, "inverse": Inverse, "post-hoc": PostHoc, "vae": Vae}
