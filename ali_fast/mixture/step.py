"""One update of R members at once: noise, game, Adam, running statistics, sums. The host waits for nothing.

Everything that differs between members or changes in time is a tensor on the device, so the same program is traced
whole, and captured as a CUDA graph where there is one. A member's numbers are a function of its own seed, setting and
points: the noise is counter-based (csrc_triton.philox), with the member's seed and the step as the key.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ali_fast.capture import Graphed, compiled
from ali_fast.mixture.models import GameInputs, Model
from ali_fast.mixture.nets import BATCH_NORM_MOMENTUM, Statistics
from ali_fast.mixture.setting import Setting
from csrc_triton.philox import element_normals, philox4x32

BETA2, ADAM_EPS = 0.999, 1e-8
KL_WARM_UP = 0.5
"""Share of the training over which the weight of a VAE's KL rises linearly from 0 to 1 (as Bowman et al., CoNLL 2016).

With all of it from the start the mixture's codes say nothing, ever: seen from afar its points are one round cloud, of
which each nat of code costs what it gains. Only a decoder that already tells the modes apart gains more. 2,000 steps
are too few, the code is then given up again; 6,000 of 12,000 and 10,000 of 20,000 were enough."""
Z, EPS, BLUR = range(3)  # the random sites


class Schedule(NamedTuple):
    """The factors of one step, of the networks' type: beta_1 and beta_2 are Adam's, t counts steps from 1."""

    rate_g: Tensor
    """[R, 1, 1]: E's and G's learning rate over the first moment's bias correction, 1 - beta_1^t."""
    rate_d: Tensor
    """[R, 1, 1]: D's."""
    one_minus_beta1: Tensor
    """[R, 1, 1]."""
    root_correction: Tensor
    """[]: 1 / sqrt(1 - beta_2^t), which corrects the root of the second moment."""
    blur: Tensor
    """[R, 1, 1]: standard deviation of the noise on the points that D sees."""
    kl_weight: Tensor
    """[]: of the KL in a VAE's loss."""


class Step:
    """`step(rows)` moves every member once; `rows` int64 [R, B] says which of `points` each one sees.

    points: float [N, D] on the device, whose type is the networks'. total_steps: the length that schedules go by.
    """

    def __init__(
        self,
        model: Model,
        points: Tensor,
        settings: Sequence[Setting],
        seeds: Sequence[int],
        *,
        total_steps: int,
        compile: bool = True,
        cuda_graph: bool = False,
    ):
        assert len(settings) == len(seeds) == model.members
        self.model, self.points = model.to(points.device, points.dtype).train(), points
        self.device, self.dtype, self.steps, self.summed = points.device, points.dtype, 0, 0
        self.theta = [*model.generator_parameters(), *model.discriminator_parameters()]
        self.m = [torch.zeros_like(p) for p in self.theta]
        self.v = [torch.zeros_like(p) for p in self.theta]

        def column(values: Sequence[float]) -> Tensor:
            return torch.tensor(values, dtype=torch.float64, device=self.device)[:, None, None]

        self.rate = column([s.learning_rate for s in settings])
        self.rate_d = column([s.learning_rate * s.discriminator_rate for s in settings])
        self.beta1 = column([s.beta1 for s in settings])
        self.decay_from = column([s.decay_from * total_steps for s in settings])
        self.blur = column([s.instance_noise for s in settings])
        self.blurred = any(s.instance_noise for s in settings)
        self.noise_until = column([s.noise_until * total_steps for s in settings])
        damped = any(s.gradient_penalty for s in settings)
        self.penalty = column([s.gradient_penalty for s in settings]).to(self.dtype) if damped else None
        self.total_steps = total_steps
        self.seeds = torch.tensor(list(seeds), dtype=torch.int64, device=self.device)
        self.counter = torch.zeros((), dtype=torch.int64, device=self.device)
        self.sums = torch.zeros(model.members, len(model.losses), dtype=torch.float64, device=self.device)
        self.first_bad = torch.full((model.members,), -1, dtype=torch.int64, device=self.device)
        update = self._update
        self.update: Callable[..., None] = compiled(update, self.device) if compile else update
        schedule = self._schedule
        self.schedule: Callable[[], Schedule] = compiled(schedule, self.device) if compile else schedule
        self.run: Callable[[Tensor], None] = Graphed(self._run) if cuda_graph else self._run

    def __call__(self, rows: Tensor) -> None:
        self.run(rows)
        self.steps += 1
        self.summed += 1

    def _run(self, rows: Tensor) -> None:
        """What happens on the device, and all that a CUDA graph holds."""
        self.update(rows, *self.schedule())
        self.counter += 1

    @torch.no_grad()
    def _schedule(self) -> Schedule:
        """A program of its own: within the update's, Inductor would take the power for every element anew."""
        done = self.counter.double()
        decay = ((self.total_steps - done) / (self.total_steps - self.decay_from).clamp_min(1)).clamp(0, 1)
        correction1, correction2 = 1 - self.beta1 ** (done + 1), 1 - BETA2 ** (done + 1)
        schedule = Schedule(
            rate_g=self.rate * decay / correction1,
            rate_d=self.rate_d * decay / correction1,
            one_minus_beta1=1 - self.beta1,
            root_correction=correction2.rsqrt(),
            blur=self.blur * (1 - done / self.noise_until).clamp_min(0),
            kl_weight=(done / (KL_WARM_UP * self.total_steps)).clamp(max=1),
        )
        return Schedule(*(factor.to(self.dtype) for factor in schedule))

    def _update(self, rows: Tensor, *factors: Tensor) -> None:
        """rows int64 [R, B]; factors: a Schedule's."""
        schedule = Schedule(*factors)
        x = self.points[rows]
        z, eps, noise = self.noise(x.shape[1])
        statistics: Statistics = []
        blur = None if noise is None else noise * schedule.blur
        inputs = GameInputs(x, z, eps, blur, self.penalty, schedule.kl_weight)
        outcome = self.model.play(inputs, statistics)
        with torch.no_grad():
            rates = [schedule.rate_g] * len(outcome.generator) + [schedule.rate_d] * len(outcome.discriminator)
            gradients = [*outcome.generator, *outcome.discriminator]
            for p, g, m, v, rate in zip(self.theta, gradients, self.m, self.v, rates, strict=True):
                m.add_((g - m) * schedule.one_minus_beta1)
                v.add_((g * g - v) * (1 - BETA2))
                p.sub_(rate * m / (v.sqrt() * schedule.root_correction + ADAM_EPS))
            for running, batch in statistics:
                running.lerp_(batch, BATCH_NORM_MOMENTUM)
            losses = outcome.losses.double()
            self.sums.add_(losses)
            bad = (self.first_bad < 0) & ~losses.isfinite().all(dim=1)
            self.first_bad.copy_(torch.where(bad, self.counter, self.first_bad))

    def noise(self, batch: int) -> tuple[Tensor, Tensor, Tensor | None]:
        """z [R, B, L] and the encoder's eps, each ~ N(0, I), and D's [R, 2B, D] where a member wants it."""
        sizes = self.model.sizes
        z, eps = self._normals(Z, batch, sizes.z), self._normals(EPS, batch, self.model.noise_dims)
        return z, eps, self._normals(BLUR, 2 * batch, sizes.x) if self.blurred else None

    def _normals(self, site: int, count: int, dims: int) -> Tensor:
        w0, w1, _, _ = philox4x32(self.seeds, self.counter, site)
        keys = (w0 | (w1 << 32))[None, :, None]  # [site, R, 1]: against the elements, one row a member
        eps, _, _ = element_normals(keys, 0, count * dims, self.dtype)
        return eps.reshape(len(self.seeds), count, dims)

    def read_losses(self) -> Tensor:
        """Means since the last reading, float64 [R, n] on the CPU; waits for the device."""
        means = (self.sums / max(self.summed, 1)).cpu()
        self.sums.zero_()
        self.summed = 0
        return means

    def first_bad_steps(self) -> list[int | None]:
        """For each member the first step (from 0) whose losses were not finite; waits for the device."""
        return [step if step >= 0 else None for step in self.first_bad.tolist()]

    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed run continues from: tensors and numbers only."""
        return {
            "model": self.model.state_dict(),
            "m": self.m,
            "v": self.v,
            "steps": self.steps,
            "sums": self.sums,
            "summed": self.summed,
            "first_bad": self.first_bad,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        for name in ("m", "v"):
            for tensor, saved in zip(getattr(self, name), state[name], strict=True):
                tensor.copy_(saved)
        self.steps, self.summed = state["steps"], state["summed"]
        self.counter.fill_(self.steps)
        self.sums.copy_(state["sums"])
        self.first_bad.copy_(state["first_bad"])
