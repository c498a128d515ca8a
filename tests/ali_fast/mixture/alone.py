"""One member of each model the usual way: torch's own layers, losses by autograd, torch.optim.Adam."""

import torch
import torch.nn.functional as F
from torch import nn

from ali_fast.mixture import nets
from ali_fast.mixture.nets import Sizes
from ali_fast.mixture.setting import Setting

SIZES = Sizes(hidden=12, units=6, pieces=5)
SETTINGS = (
    Setting(learning_rate=1e-2, beta1=0.0, init_std=0.3),
    Setting(learning_rate=3e-3, beta1=0.5, init_std=0.2, discriminator_rate=2.0, decay_from=0.4),
    Setting(
        learning_rate=1e-3,
        beta1=0.8,
        init_std=0.4,
        decay_from=0.7,
        instance_noise=0.3,
        noise_until=0.8,
        gradient_penalty=0.6,
    ),
)
POINTS, BATCH, STEPS = 500, 16, 20


class Maxout(nn.Module):
    def __init__(self, weight, bias, pieces):
        super().__init__()
        self.linear = linear(weight, bias)
        self.pieces = pieces

    def forward(self, h):
        return self.linear(h).reshape(len(h), self.pieces, -1).max(dim=1).values


def linear(weight, bias=None):
    layer = nn.Linear(*weight.shape, bias=bias is not None).double()
    with torch.no_grad():
        layer.weight.copy_(weight.T)
        if bias is not None:
            layer.bias.copy_(bias[0])
    return layer


def network(stacked, r):
    layers = []
    for layer in stacked.layers:
        if isinstance(layer, nets.Normalized):
            n = layer.weight.shape[2]
            layers += [linear(layer.weight[r]), nn.BatchNorm1d(n, eps=1e-4, momentum=0.05).double(), nn.ReLU()]
        elif isinstance(layer, nets.Maxout):
            layers.append(Maxout(layer.weight[r], layer.bias[r], layer.pieces))
        else:
            layers.append(linear(layer.weight[r], layer.bias[r]))
    return nn.Sequential(*layers)


class Alone:
    """Member r of a Step's model, its setting, and `step(x, z, eps, blur)`."""

    def __init__(self, name, model, r, setting, total_steps):
        self.name, self.setting, self.total, self.done = name, setting, total_steps, 0
        self.nets = {key: network(net, r) for key, net in model.named_children()}
        if name in ("inverse", "post-hoc"):
            self.nets["decoder"].eval()
            played = [self.nets["encoder"]]
        else:
            played = [net for key, net in self.nets.items() if key != "discriminator"]
        self.theta_g = [p for net in played for p in net.parameters()]
        self.theta_d = list(self.nets["discriminator"].parameters()) if "discriminator" in self.nets else []
        self.adams = [
            torch.optim.Adam(theta, lr=1.0, betas=(setting.beta1, 0.999), eps=1e-8, foreach=False)
            for theta in (self.theta_g, self.theta_d)
            if theta
        ]

    def losses(self, x, z, eps, blur):
        """Each player's loss."""
        nets, name = self.nets, self.name
        if name == "vae":
            mu, log_sigma = nets["encoder"](x).chunk(2, dim=1)
            q = torch.distributions.Normal(mu, log_sigma.exp())
            kl = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0)).sum(1).mean()
            x_hat = nets["decoder"](mu + log_sigma.exp() * eps)
            s = ((x - x_hat) ** 2).mean().sqrt()
            self.not_yet = (1 - min(1.0, 2 * self.done / self.total)) * kl
            return [kl - torch.distributions.Normal(x_hat, s).log_prob(x).sum(1).mean()]
        x_tilde = nets["decoder"](z)
        if name == "inverse":
            return [((z - nets["encoder"](torch.cat([x_tilde.detach(), eps], 1))) ** 2).sum(1).mean()]
        seen = [x, x_tilde] if name != "post-hoc" else [x, x_tilde.detach()]
        if blur is not None:
            seen = [point + noise for point, noise in zip(seen, blur.chunk(2), strict=True)]
        if name == "gan":
            data, sample = seen
        else:
            data = torch.cat([seen[0], nets["encoder"](torch.cat([x, eps], 1))], 1)
            sample = torch.cat([seen[1], z], 1)
        l_q, l_p = nets["discriminator"](data), nets["discriminator"](sample)
        loss_d = F.softplus(-l_q).mean() + F.softplus(l_p).mean()
        loss_g = F.softplus(l_q).mean() + F.softplus(-l_p).mean()
        self.pairs = torch.cat([data, sample])
        return [loss_g, loss_d]

    def penalty(self, pairs):
        """D's mean squared slope at the pairs, each alone, by the chain of the layers' Jacobians."""
        slope = torch.func.vmap(torch.func.jacrev(lambda pair: self.nets["discriminator"](pair[None])[0, 0]))
        return self.setting.gradient_penalty / 2 * slope(pairs.detach()).square().sum(1).mean()

    def step(self, x, z, eps, blur):
        share = self.done / self.total
        rate = self.setting.learning_rate
        if share > self.setting.decay_from:
            rate *= (1 - share) / (1 - self.setting.decay_from)
        if blur is not None:
            blur = blur * self.setting.instance_noise * max(0.0, 1 - share / self.setting.noise_until)
        losses = self.losses(x, z, eps, blur)
        costs = [losses[0], losses[1] + self.penalty(self.pairs)] if self.theta_d else losses
        if self.name == "vae":
            costs = [losses[0] - self.not_yet]
        for theta, loss in zip((self.theta_g, self.theta_d), costs, strict=False):
            gradients = torch.autograd.grad(loss, theta, retain_graph=True)
            for p, gradient in zip(theta, gradients, strict=True):
                p.grad = gradient
        for adam, factor in zip(self.adams, (1.0, self.setting.discriminator_rate), strict=False):
            adam.param_groups[0]["lr"] = rate * factor
            adam.step()
        self.done += 1
        return torch.stack(losses).detach()

    def parameters(self):
        """In the order of the stacked model's, each as [in, out] or [1, out]."""
        for net in self.nets.values():
            for p in net.parameters():
                yield p.detach().T if p.dim() == 2 else p.detach()[None]

    def running(self):
        """Running mean and variance of each batch norm that trains, [1, n]; torch's variance is the unbiased one."""
        for net in self.nets.values():
            for layer in net:
                if isinstance(layer, nn.BatchNorm1d) and layer.training:
                    yield layer.running_mean[None], layer.running_var[None]
