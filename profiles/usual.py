"""The usual PyTorch step: what a good re-implementation of the paper does, and what every ratio here is against.

Eager, float32, NCHW; E and G run again for the generator's update; D called separately on data and on sample pairs;
D's gradients of the generator's loss computed and thrown away; torch.optim.Adam's defaults. cuDNN times its
algorithms, as for ours: that is set for the whole process. Plain torch.nn layers, made from the same tables as ours.
104.7 GFLOP a step for cifar10 at batch 100. It is not slowed: of equal forms the faster one is taken (no gradient into
E and G in D's update, no host synchronization, no metrics).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ali_fast.arch import Architecture, Layout, Table, layout
from ali_fast.layers import BATCH_NORM_EPS, BATCH_NORM_MOMENTUM
from ali_fast.pixels import to_x


class Maxout(nn.Module):
    """The larger of each two adjacent channels."""

    def forward(self, h: Tensor) -> Tensor:
        return h.unflatten(1, (-1, 2)).max(2).values


class UntiedBias(nn.Module):
    """One number per channel and pixel."""

    def __init__(self, channels: int, size: int):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels, size, size))

    def forward(self, h: Tensor) -> Tensor:
        return h + self.bias


def network(table: Table, channels: int, size: int, architecture: Architecture) -> nn.Sequential:
    """A table as torch.nn layers, weights ~ N(0, init_std^2)."""
    layers = [module for place in layout(table, channels, size) for module in _layers(place, architecture.slope)]
    for module in layers:
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, 0.0, architecture.init_std)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return nn.Sequential(*layers)


def _layers(place: Layout, slope: float) -> list[nn.Module]:
    row = place.row
    convolution = nn.Conv2d if row.operation == "conv" else nn.ConvTranspose2d
    product = convolution(place.in_channels, row.maps, row.kernel, row.stride, bias=row.bias == "tied")
    layers: list[nn.Module] = [product]
    if row.norm:
        layers.append(nn.BatchNorm2d(row.maps, eps=BATCH_NORM_EPS, momentum=BATCH_NORM_MOMENTUM))
    if row.bias == "untied":
        layers.append(UntiedBias(row.maps, place.out_size))
    if row.activation == "leaky_relu":
        layers.append(nn.LeakyReLU(slope))
    elif row.activation == "sigmoid":
        layers.append(nn.Sigmoid())
    elif row.activation == "maxout":
        layers.append(Maxout())
    if row.dropout:
        layers.insert(0 if row.dropout_site == "input" else 1, nn.Dropout(row.dropout))
    return layers


class Discriminator(nn.Module):
    """D(x, z): logits [N] of x [N, C, H, W] and z [N, L, 1, 1]."""

    def __init__(self, architecture: Architecture):
        super().__init__()
        a = architecture
        self.x = network(a.discriminator_x, a.image_channels, a.image_size, a)
        self.z = network(a.discriminator_z, a.z_dim, 1, a)
        self.xz = network(a.discriminator_xz, a.joint_channels, 1, a)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        return self.xz(torch.cat([self.x(x), self.z(z)], dim=1)).flatten()


class UsualStep:
    """`step(images)`, images uint8 [B, H, W, C] on the device: D's update, then E's and G's."""

    def __init__(
        self,
        architecture: Architecture,
        device: torch.device,
        *,
        learning_rate: float,
        betas: tuple[float, float] = (0.5, 0.999),
        memory_format: torch.memory_format = torch.contiguous_format,
    ):
        a = architecture
        self.size, self.z_dim, self.memory_format = a.image_size, a.z_dim, memory_format
        self.encoder = network(a.encoder, a.image_channels, a.image_size, a)
        self.decoder = network(a.decoder, a.z_dim, 1, a)
        self.discriminator = Discriminator(a)
        for module in (self.encoder, self.decoder, self.discriminator):
            # torch has no type for `to` with both
            module.to(device=device, memory_format=memory_format)  # type: ignore[call-overload]
        generator = [*self.encoder.parameters(), *self.decoder.parameters()]
        self.adam_g = torch.optim.Adam(generator, lr=learning_rate, betas=betas)
        self.adam_d = torch.optim.Adam(self.discriminator.parameters(), lr=learning_rate, betas=betas)

    def generate(self, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """z_hat and x_tilde."""
        mu, log_sigma = self.encoder(x).chunk(2, dim=1)
        return mu + log_sigma.exp() * torch.randn_like(mu), self.decoder(z)

    def __call__(self, images: Tensor) -> None:
        x = to_x(images, self.size).contiguous(memory_format=self.memory_format)
        z = torch.randn(len(x), self.z_dim, 1, 1, device=x.device)

        with torch.no_grad():
            z_hat, x_tilde = self.generate(x, z)
        l_q, l_p = self.discriminator(x, z_hat), self.discriminator(x_tilde, z)
        self.adam_d.zero_grad()
        (F.softplus(-l_q).mean() + F.softplus(l_p).mean()).backward()
        self.adam_d.step()

        z_hat, x_tilde = self.generate(x, z)
        l_q, l_p = self.discriminator(x, z_hat), self.discriminator(x_tilde, z)
        self.adam_g.zero_grad()
        (F.softplus(l_q).mean() + F.softplus(-l_p).mean()).backward()
        self.adam_g.step()
