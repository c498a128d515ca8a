"""The three networks of ALI and the whole; the other objectives' models are made of the same parts."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ali_fast.arch import Architecture, embedding
from ali_fast.kernels import Kernels
from ali_fast.layers import Convolution, Link, Normalized, Pixels, Stack, Statistics, batch_norms
from ali_fast.players import PLAYERS, Objective
from csrc_triton.bias_act import bias_act


class JointDiscriminator(nn.Module):
    """D(x, z): logits of pairs, positive for (x, z_hat). D(x) and D(z) are joined by channels into D(x, z).

    A GAN's (`pairs` False) judges images alone: D(x, z)'s layers take D(x)'s channels, and there is no D(z).
    With `classes` K it has K logits a pair instead of one.
    """

    def __init__(
        self,
        architecture: Architecture,
        kernels: Kernels,
        slots: Iterator[int],
        pairs: bool = True,
        classes: int | None = None,
    ):
        super().__init__()
        self.classes = classes
        a = architecture
        joint = a.discriminator_xz[0].dropout
        self.input_dropout, self.input_slot = a.discriminator_x[0].dropout, next(slots)
        self.kernels = kernels
        self.x = Stack(a.discriminator_x, a.image_channels, a.image_size, a.slope, kernels, slots, joint)
        if pairs:
            self.z = Stack(a.discriminator_z, a.z_dim, 1, a.slope, kernels, slots, joint)
        channels = a.joint_channels if pairs else a.discriminator_x[-1].channels
        last = dataclasses.replace(a.discriminator_xz[-1], maps=classes or 1)
        self.xz = Stack((*a.discriminator_xz[:-1], last), channels, 1, a.slope, kernels, slots)

    def head_parameters(self) -> list[nn.Parameter]:
        """All but D(x)'s: of what treats pairs independently in every architecture."""
        return [p for name, p in self.named_parameters() if not name.startswith("x.")]

    def features(
        self, x: Tensor, seeds: Tensor | None, statistics: Statistics | None, links: list[Link] | None = None
    ) -> Tensor:
        """D(x): x [N, C, H, W] -> [N, c, 1, 1], ready (dropped) for `head`. links: see `Stack.forward`."""
        dropout = self.input_dropout if self.training else 0.0
        if dropout:
            x = bias_act(x, dropout=dropout, seeds=seeds, slot=self.input_slot, backend=self.kernels.bias_act)
        return self.x(x, seeds, statistics, links=links)

    def head(self, h: Tensor, z: Tensor | None, seeds: Tensor | None, e: Tensor | None = None) -> Tensor:
        """D(z) and D(x, z): h of `features` and z [N, L, 1, 1], its input dropout applied -> logits [N] or [N, K].

        z is None where images alone are judged; e: the embedded condition, of a conditional model.
        """
        joint = h if z is None else torch.cat([h, self.z(z, seeds)], dim=1)
        return self.xz(joint, seeds, e=e).flatten(0 if self.classes is None else 1)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        """Logits [N] or [N, K] in evaluation mode."""
        assert not self.training, "training goes through features and head, with seeds"
        return self.head(self.features(x, None, None), z, None)


class ALI(nn.Module):
    """Encoder, decoder and discriminator.

    `encoder`: x [N, C, H, W] in [0, 1] -> [N, 2 L, 1, 1], mu then log_sigma; of a `deterministic` one, BiGAN's case,
    [N, L, 1, 1], mu alone. `decoder`: z [N, L, 1, 1] -> x_tilde.
    `sites` random sites read their seed by slot; slot 0 is the reparametrization's. Another `objective` than ALI has
    those of the networks that it plays with, and what is frozen neither trains nor goes to training mode.

    A conditional model is told y [N, `y_dim`, 1, 1], and has an `embedding` of it, linear, [N, 256, 1, 1], that E, G
    and D share. It is the generator's: it learns from L_g, by way of all three networks. The authors' code gives it to
    neither player, so that there it stays at its initial value; the paper does not say.
    """

    def __init__(
        self,
        architecture: Architecture,
        kernels: Kernels,
        objective: Objective = "ali",
        *,
        deterministic: bool = False,
        classes: int | None = None,
        y_dim: int | None = None,
    ):
        super().__init__()
        self.objective, self.players = objective, PLAYERS[objective]
        a, slots = architecture.conditioned() if self.players.conditional else architecture, itertools.count()
        self.architecture, self.kernels, self.deterministic = a, kernels, deterministic
        assert (classes is not None) == self.players.classes
        assert (y_dim is not None) == self.players.conditional
        self.classes, self.y_dim = classes, y_dim
        self.noise_slot = next(slots)
        self.z_dropout = a.discriminator_z[0].dropout if self.players.judged == "pairs" else 0.0
        if self.players.encoder:
            last = dataclasses.replace(a.encoder[-1], maps=a.z_dim) if deterministic else a.encoder[-1]
            self.encoder = Stack((*a.encoder[:-1], last), a.image_channels, a.image_size, a.slope, kernels, slots)
        self.decoder = Stack(a.decoder, a.z_dim, 1, a.slope, kernels, slots)
        if self.players.frozen_decoder:
            self.decoder.requires_grad_(False).eval()
        if y_dim is not None:
            self.embedding = Stack((embedding(),), y_dim, 1, a.slope, kernels, slots)
        if self.players.judged:
            self.discriminator = JointDiscriminator(a, kernels, slots, self.players.judged == "pairs", classes)
        self.sites = next(slots)

    def train(self, mode: bool = True) -> ALI:
        super().train(mode)
        if self.players.frozen_decoder:
            self.decoder.eval()
        return self

    def initialize(self, generator: torch.Generator, log_odds: Tensor | None = None) -> None:
        """Weights ~ N(0, init_std^2) by a CPU generator; the output bias from `log_odds` [C, size, size]."""
        with torch.no_grad():
            for module in self.modules():
                if isinstance(module, Convolution):
                    weight = torch.empty(module.weight.shape)
                    weight.normal_(0, self.architecture.init_std, generator=generator)
                    module.weight.copy_(weight)
                elif isinstance(module, Pixels) and log_odds is not None:
                    module.bias.copy_(log_odds[None])

    def codes(
        self,
        x: Tensor,
        seeds: Tensor | None = None,
        statistics: Statistics | None = None,
        e: Tensor | None = None,
    ) -> Tensor:
        """x [N, C, H, W] -> mu and log_sigma [N, 2 L, 1, 1]; a deterministic encoder's log_sigma is minus infinity.

        e: the embedded condition, of a conditional model.
        """
        codes = self.encoder(x, seeds, statistics, e)
        return torch.cat([codes, torch.full_like(codes, -math.inf)], dim=1) if self.deterministic else codes

    def infer(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x [N, C, H, W], of a conditional model y [N, K, 1, 1] as well -> mu, log_sigma, each [N, L, 1, 1]."""
        mu, log_sigma = self.codes(x, e=None if y is None else self.embedding(y)).chunk(2, dim=1)
        return mu, log_sigma

    def generate(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """z [N, L, 1, 1], of a conditional model y [N, K, 1, 1] as well -> x_tilde [N, C, H, W]."""
        return self.decoder(z, e=None if y is None else self.embedding(y))

    def generator_parameters(self) -> list[nn.Parameter]:
        """E's, G's and the embedding's, as far as they train: the players of L_g, or of an objective without D."""
        theta = [p for name, p in self.named_parameters() if not name.startswith("discriminator.")]
        return [p for p in theta if p.requires_grad]

    def discriminator_parameters(self) -> list[nn.Parameter]:
        return list(self.discriminator.parameters()) if self.players.judged else []

    def trained_norms(self) -> list[Normalized]:
        """Batch norms, in the order in which a training pass appends their statistics: E's, G's, D(x)'s."""
        frozen = self.decoder if self.players.frozen_decoder else None
        return batch_norms(*(network for network in self.children() if network is not frozen))

    @property
    def shows_d(self) -> bool:
        """Whether D is part of what a run is for: of K + 1 classes it is the classifier."""
        return self.classes is not None

    def averaged_state(self) -> dict[str, Tensor]:
        """What --ema averages: weights and running statistics, by their names in the whole model's state."""
        return {n: t for n, t in self.state_dict().items() if self.shows_d or not n.startswith("discriminator.")}

    def untrained(self) -> ALI:
        """The same networks on the CPU, to be initialized."""
        return ALI(
            self.architecture,
            self.kernels,
            self.objective,
            deterministic=self.deterministic,
            classes=self.classes,
            y_dim=self.y_dim,
        )

    def twin(self) -> ALI:
        """A model with networks of its own, now equal to these; only D, unless it is shown, is this one."""
        shares_d = self.players.judged and not self.shows_d
        return copy.deepcopy(self, {id(self.discriminator): self.discriminator} if shares_d else {})

    def working_copy(self, dtype: torch.dtype) -> ALI:
        """The same networks with the products' weights in `dtype`; every other tensor is shared."""
        shared: dict[int, object] = {id(t): t for t in itertools.chain(self.parameters(), self.buffers())}
        for module in self.modules():
            if isinstance(module, Convolution):
                for p in module.parameters():
                    del shared[id(p)]
        twin = copy.deepcopy(self, shared)
        for module in twin.modules():
            if isinstance(module, Convolution):
                module.to(dtype)
        return twin


def mean_log_odds(x: Tensor) -> Tensor:
    """log(m / (1 - m)) of the mean image m of x [N, C, H, W], clipped to [1e-7, 1 - 1e-7]; [C, H, W]."""
    mean = x.double().mean(dim=0).clamp(1e-7, 1 - 1e-7)
    return torch.log(mean / (1 - mean)).to(x.dtype)
