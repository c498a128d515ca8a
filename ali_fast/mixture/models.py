"""The five models of section 4.5, R members each: which networks, which game, how to encode and decode.

Points and codes are [R, B, 2]. `encode` and `decode` are for evaluation mode; `play` is one game in training mode.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ali_fast.mixture import games, nets
from ali_fast.mixture.games import Judged, Outcome
from ali_fast.mixture.nets import Network, Sizes, Statistics


class Turn(NamedTuple):
    """What one game is played with, beside the networks."""

    x: Tensor
    z: Tensor
    eps: Tensor
    """The encoder's noise."""
    blur: Tensor | None
    """[R, 2B, 2]: noise on the points that D sees."""
    penalty: Tensor | None
    """[R, 1, 1]: the weights of D's gradient penalty."""
    kl_weight: Tensor
    """[]: of the KL in a VAE's loss."""


class Model(nn.Module):
    """What the five share."""

    losses: tuple[str, ...]
    decoder: Network

    def __init__(self, members: int, sizes: Sizes):
        super().__init__()
        self.members, self.sizes = members, sizes
        self.decoder = nets.decoder(members, sizes)

    @property
    def noise_dims(self) -> int:
        """Of eps: ALI's encoder takes it beside x."""
        return self.sizes.x

    def play(self, turn: Turn, statistics: Statistics) -> Outcome:
        raise NotImplementedError

    def encode(self, x: Tensor, eps: Tensor) -> Tensor:
        """A sample of q(z | x)."""
        raise NotImplementedError

    def decode(self, z: Tensor) -> Tensor:
        return self.decoder(z, [])

    def generator_parameters(self) -> list[nn.Parameter]:
        """Of whatever is trained beside a discriminator."""
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
    """The joint batch's, as D sees them."""
    points = torch.cat([x, x_tilde], dim=1)
    return points if blur is None else points + blur


class Encoding(Model):
    """A model with ALI's encoder of [x, eps]."""

    def __init__(self, members: int, sizes: Sizes):
        super().__init__(members, sizes)
        self.encoder = nets.encoder(members, sizes)

    def encode(self, x: Tensor, eps: Tensor) -> Tensor:
        return self.encoder(torch.cat([x, eps], dim=2), [])


class Ali(Encoding):
    losses = games.ADVERSARIAL_LOSSES

    def __init__(self, members: int, sizes: Sizes):
        super().__init__(members, sizes)
        self.discriminator = nets.discriminator(members, sizes.x + sizes.z, sizes)

    def play(self, turn: Turn, statistics: Statistics) -> Outcome:
        return games.ali(
            lambda x: self.encoder(torch.cat([x, turn.eps], dim=2), statistics),
            lambda z: self.decoder(z, statistics),
            lambda x, x_tilde, z_hat, z: self.judge(_points(x, x_tilde, turn.blur), torch.cat([z_hat, z], dim=1)),
            self.generator_parameters(),
            self.discriminator_parameters(),
            turn.x,
            turn.z,
            turn.penalty,
        )

    def judge(self, x: Tensor, z: Tensor) -> Judged:
        pairs = torch.cat([x, z], dim=2)
        return Judged(self.discriminator(pairs, [])[:, :, 0], pairs)


class Gan(Model):
    losses = games.ADVERSARIAL_LOSSES

    def __init__(self, members: int, sizes: Sizes):
        super().__init__(members, sizes)
        self.discriminator = nets.discriminator(members, sizes.x, sizes)

    def play(self, turn: Turn, statistics: Statistics) -> Outcome:
        return games.gan(
            lambda z: self.decoder(z, statistics),
            lambda x, x_tilde: self.judge(_points(x, x_tilde, turn.blur)),
            self.generator_parameters(),
            self.discriminator_parameters(),
            turn.x,
            turn.z,
            turn.penalty,
        )

    def judge(self, x: Tensor) -> Judged:
        return Judged(self.discriminator(x, [])[:, :, 0], x)


class Inverse(Encoding):
    """The learned inverse mapping of a GAN whose decoder stays as it is."""

    losses = games.INVERSE_LOSSES

    def __init__(self, members: int, sizes: Sizes):
        super().__init__(members, sizes)
        self.decoder.freeze()

    def play(self, turn: Turn, statistics: Statistics) -> Outcome:
        return games.inverse(
            lambda x: self.encoder(torch.cat([x, turn.eps], dim=2), statistics),
            self.decode,
            self.generator_parameters(),
            turn.z,
        )


class PostHoc(Ali):
    """Post-hoc inference: ALI against a GAN's decoder, which stays as it is."""

    def __init__(self, members: int, sizes: Sizes):
        super().__init__(members, sizes)
        self.decoder.freeze()

    def play(self, turn: Turn, statistics: Statistics) -> Outcome:
        return games.post_hoc(
            lambda x: self.encoder(torch.cat([x, turn.eps], dim=2), statistics),
            self.decode,
            lambda x, x_tilde, z_hat, z: self.judge(_points(x, x_tilde, turn.blur), torch.cat([z_hat, z], dim=1)),
            self.generator_parameters(),
            self.discriminator_parameters(),
            turn.x,
            turn.z,
            turn.penalty,
        )


class Vae(Model):
    losses = games.VAE_LOSSES

    def __init__(self, members: int, sizes: Sizes):
        super().__init__(members, sizes)
        self.encoder = nets.gaussian_encoder(members, sizes)

    @property
    def noise_dims(self) -> int:
        return self.sizes.z

    def encode(self, x: Tensor, eps: Tensor) -> Tensor:
        mu, log_sigma = self.encoder(x, []).chunk(2, dim=2)
        return mu + log_sigma.exp() * eps

    def play(self, turn: Turn, statistics: Statistics) -> Outcome:
        return games.vae(
            lambda x: tuple(self.encoder(x, statistics).chunk(2, dim=2)),
            lambda z: self.decoder(z, statistics),
            self.generator_parameters(),
            turn.x,
            turn.eps,
            turn.kl_weight,
        )


MODELS: dict[str, type[Model]] = {"ali": Ali, "gan": Gan, "inverse": Inverse, "post-hoc": PostHoc, "vae": Vae}
