"""How one member trains: its hyperparameters, and the ranges from which the protocol and the search draw them.

The paper trains "with random learning rate and beta_1 values" and "a random standard deviation" and prints no ranges:
these are ours. Standard library only; every draw is a function of its seed.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from ali_fast.errors import InputError
from ali_fast.seeds import seed_of

LEARNING_RATE_RANGE = (1e-5, 1e-3)
"""Log-uniform."""
BETA1_RANGE = (0.0, 0.9)
"""Uniform."""
INIT_STD_RANGE = (0.005, 0.1)
"""Log-uniform."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Hyperparameters of a member. The defaults are those of the authors' code; its 0.8 may be today's beta1 of 0.2."""

    learning_rate: float = 1e-4
    """Of both Adams; beta2 is 0.999."""
    beta1: float = 0.8
    init_std: float = 0.02
    """Weights ~ N(0, init_std^2); biases 0; batch norm's scale 1 and shift 0."""
    discriminator_rate: float = 1.0
    """The discriminator's learning rate as a multiple of the generator's."""
    decay_from: float = 1.0
    """Share of the training after which the learning rates fall linearly to 0; at 1 they stay."""
    instance_noise: float = 0.0
    """Standard deviation of Gaussian noise on the points D sees at the start; it falls linearly to 0 at noise_until."""
    noise_until: float = 1.0
    """Share of the training after which there is no such noise."""
    gradient_penalty: float = 0.0
    """Weight g of g / 2 E|dl/d(x, z)|^2 over the pairs of both kinds, which D's loss has besides (l: its logit)."""

    def __post_init__(self) -> None:
        accepted = {
            "learning_rate": (self.learning_rate > 0, "more than 0"),
            "beta1": (0 <= self.beta1 < 1, "at least 0 and less than 1"),
            "init_std": (self.init_std > 0, "more than 0"),
            "discriminator_rate": (self.discriminator_rate > 0, "more than 0"),
            "decay_from": (0 < self.decay_from <= 1, "more than 0 and at most 1"),
            "instance_noise": (self.instance_noise >= 0, "at least 0"),
            "noise_until": (0 < self.noise_until <= 1, "more than 0 and at most 1"),
            "gradient_penalty": (self.gradient_penalty >= 0, "at least 0"),
        }
        for name, (good, what) in accepted.items():
            if not (good and math.isfinite(getattr(self, name))):
                raise InputError(f"--{name.replace('_', '-')} {getattr(self, name)}: must be {what}")


RECOMMENDED = Setting(
    learning_rate=4.5e-4, beta1=0.3, init_std=0.04, discriminator_rate=1.5, decay_from=0.4, gradient_penalty=0.5
)
"""What `mixture search` led to. With the penalty all modes come into balance early, the decay then makes the samples
sharp: numbers in profiles/results/2026-11-26-h100."""


def member_seed(*names: object) -> int:
    """A seed below 2^63 for what is named, unrelated to any other's."""
    return seed_of("mixture", *names)


def _log_uniform(generator: random.Random, low: float, high: float) -> float:
    return math.exp(generator.uniform(math.log(low), math.log(high)))


def draw_protocol(seed: int, index: int) -> Setting:
    """The paper's protocol: random learning rate, beta1 and init std for run `index`, the same for ALI and GAN."""
    generator = random.Random(member_seed("protocol", seed, index))
    return Setting(
        learning_rate=_log_uniform(generator, *LEARNING_RATE_RANGE),
        beta1=generator.uniform(*BETA1_RANGE),
        init_std=_log_uniform(generator, *INIT_STD_RANGE),
    )


def draw_search(seed: int, index: int) -> Setting:
    """Trial `index` of the search for a recommended setting.

    The first two are what it has to beat: the code's setting, its "beta1 0.8" read either way. The others always decay
    their rates, since players who move at once at a constant rate keep circling what they seek. Half of them start with
    instance noise, under which data and samples overlap, so that no mode is out of sight; half of either kind damp D by
    a gradient penalty, with which such games converge at a rate that stays (Mescheder et al., ICML 2018).
    """
    if index < 2:
        return Setting(beta1=(0.8, 0.2)[index])
    generator = random.Random(member_seed("search", seed, index))
    return Setting(
        learning_rate=_log_uniform(generator, 5e-5, 1e-3),
        beta1=generator.uniform(0.0, 0.8),
        init_std=_log_uniform(generator, 0.02, 0.15),
        discriminator_rate=_log_uniform(generator, 0.5, 4.0),
        decay_from=generator.uniform(0.2, 0.9),
        instance_noise=_log_uniform(generator, 0.2, 2.0) if index % 2 else 0.0,
        noise_until=generator.uniform(0.3, 1.0),
        gradient_penalty=_log_uniform(generator, 1e-3, 1.0) if index // 2 % 2 else 0.0,
    )
