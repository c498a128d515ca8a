"""The usual step is a fair opponent: the paper's networks, as ours are, and an update that learns."""

import pytest
import torch
from torch import nn

from ali_fast import kernels, presets
from ali_fast.model import ALI
from ali_fast.pixels import to_x
from profiles.usual import UntiedBias, UsualStep

CPU = torch.device("cpu")


def copy_weights(network: nn.Sequential, stack) -> None:
    """Of our stack into the usual network, row by row."""
    row = -1
    for module in network:
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            row += 1
            product, activation = stack.products[row], stack.activations[row]
            module.weight.copy_(product.weight)
            if module.bias is not None:
                module.bias.copy_(activation.bias if product.bias is None else product.bias)
        elif isinstance(module, nn.BatchNorm2d):
            module.weight.copy_(activation.weight)
            module.bias.copy_(activation.bias)
        elif isinstance(module, UntiedBias):
            module.bias.copy_(activation.bias[0])


@pytest.mark.parametrize("name", ["digits", "fashion-mnist"])
@torch.no_grad()
def test_the_same_networks_as_ours(name):
    preset = presets.resolve(name)
    a = preset.architecture
    usual = UsualStep(a, CPU, learning_rate=1e-4)
    ours = ALI(a, kernels.resolve("eager", "cpu"))
    generator = torch.Generator().manual_seed(0)
    for parameter in ours.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    theirs = usual.discriminator
    pairs = [(usual.encoder, ours.encoder), (usual.decoder, ours.decoder)]
    pairs += [(getattr(theirs, part), getattr(ours.discriminator, part)) for part in ("x", "z", "xz")]
    for network, stack in pairs:
        copy_weights(network, stack)
    for module in (ours, usual.encoder, usual.decoder, theirs):
        module.eval()
    x = torch.rand(3, a.image_channels, a.image_size, a.image_size, generator=generator)
    z = torch.randn(3, a.z_dim, 1, 1, generator=generator)
    torch.testing.assert_close(usual.encoder(x), torch.cat(ours.infer(x), 1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(usual.decoder(z), ours.decoder(z), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(theirs(x, z), ours.discriminator(x, z), rtol=1e-4, atol=1e-5)


def test_each_player_moves_by_its_own_loss():
    """D's parameters by the sum of both its terms, E's and G's by theirs at the moved D; neither by the other's."""
    preset = presets.resolve("digits")
    torch.manual_seed(0)
    step = UsualStep(preset.architecture, CPU, learning_rate=3e-3)
    images = torch.randint(0, 256, (8, 8, 8, 1), dtype=torch.uint8)

    def loss_d():
        torch.manual_seed(1)
        with torch.no_grad():
            x = to_x(images, step.size)
            z = torch.randn(8, step.z_dim, 1, 1)
            z_hat, x_tilde = step.generate(x, z)
            l_q, l_p = step.discriminator(x, z_hat), step.discriminator(x_tilde, z)
            return float((nn.functional.softplus(-l_q) + nn.functional.softplus(l_p)).mean())

    step.adam_g.param_groups[0]["lr"] = 0.0
    before = loss_d()
    for _ in range(20):
        step(images)
    learned = loss_d()
    assert learned < before - 0.4
    step.adam_g.param_groups[0]["lr"], step.adam_d.param_groups[0]["lr"] = 1e-2, 0.0
    for _ in range(20):
        step(images)
    assert loss_d() > learned + 0.4
