"""Adam for all players, which move together, and what mixed precision puts around it. Nothing waits for the device.

The update is written out (Kingma & Ba, ICLR 2015, as torch.optim.Adam computes it) and compiled: one pass reads each
gradient in the precision it came in, moves the moments and the float32 master, and writes the low-precision copy.
torch's fused Adam wants gradients in the masters' precision, hence two more passes over everything: on an H100 a tenth
of cifar10's step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ali_fast.capture import compiled
from ali_fast.model import ALI

EPS = 1e-8


class Adam:
    """One Adam for E, G and D (paper: lr 1e-4, betas 0.5 and 0.999): all step from gradients taken at the same point.

    `working` is the model the gradients were taken in; where it is a low-precision copy, its weights are renewed
    from the float32 masters in the step. With `loss_scale`, gradients come multiplied by `self.scale`: a step with a
    gradient that is not finite is skipped and counted on the device, and the scale adapts as GradScaler's.

    Attributes: learning_rate, float64 [] on the device: a captured graph reads it anew at each replay.
    """

    def __init__(
        self,
        model: ALI,
        working: ALI,
        *,
        learning_rate: float,
        betas: tuple[float, float],
        loss_scale: bool = False,
        compile: bool = True,
    ):
        device = next(model.parameters()).device
        self.masters: list[Tensor] = [*model.generator_parameters(), *model.discriminator_parameters()]
        copies = [*working.generator_parameters(), *working.discriminator_parameters()]
        pairs = zip(self.masters, copies, strict=True)
        self.copies = [None if master is copy else copy for master, copy in pairs]
        self.m = [torch.zeros_like(master) for master in self.masters]
        self.v = [torch.zeros_like(master) for master in self.masters]
        self.betas = betas
        self.learning_rate = torch.tensor(learning_rate, dtype=torch.float64, device=device)
        self.count = torch.zeros((), dtype=torch.float64, device=device)
        self.scale: Tensor | None = None
        if loss_scale:
            self.scale = torch.full((), 2.0**16, device=device)
            self.growth = torch.zeros((), dtype=torch.int32, device=device)
            self.overflow = torch.zeros((), device=device)
            self.skipped = torch.zeros((), dtype=torch.int64, device=device)
        factors, update = self._factors, self._update
        self.factors: Callable[..., tuple[Tensor, Tensor]] = compiled(factors, device) if compile else factors
        self.update: Callable[..., None] = compiled(update, device) if compile else update

    @torch.no_grad()
    def step(self, generator: Sequence[Tensor], discriminator: Sequence[Tensor]) -> None:
        gradients = [*generator, *discriminator]
        unscale = None if self.scale is None else self.scale.reciprocal()
        if self.scale is not None:
            self._check(gradients)
        self.update(0, gradients, *self.factors(), unscale)

    def _factors(self) -> tuple[Tensor, Tensor]:
        """Of this step: lr / (1 - beta1^t) and 1 / sqrt(1 - beta2^t). A program of its own: within the update's,
        Inductor would take the powers for every element anew. Not the place to count: having seen the powers torch 2.13
        traces it again, and forgets what it does to its inputs."""
        t = self.count + 1
        beta1, beta2 = self.betas
        dtype = self.masters[0].dtype
        return (self.learning_rate / (1 - beta1**t)).to(dtype), (1 - beta2**t).rsqrt().to(dtype)

    def _update(self, first: int, gradients: list[Tensor], size: Tensor, root: Tensor, unscale: Tensor | None) -> None:
        """Move the weights from number `first` on, one by each gradient; with the first of all, count the step."""
        beta1, beta2 = self.betas
        part = slice(first, first + len(gradients))
        masters, old_m, old_v, copies = self.masters[part], self.m[part], self.v[part], self.copies[part]
        with torch.no_grad():
            gradients = [g.to(master.dtype) for g, master in zip(gradients, masters, strict=True)]
            if unscale is not None:
                gradients = [g * unscale for g in gradients]
            m = list(torch._foreach_lerp(old_m, gradients, 1 - beta1))
            v = list(torch._foreach_lerp(old_v, torch._foreach_mul(gradients, gradients), 1 - beta2))
            divisors = torch._foreach_add(torch._foreach_mul(torch._foreach_sqrt(v), root), EPS)
            moves = list(torch._foreach_mul(torch._foreach_div(m, divisors), size))
            new = list(torch._foreach_sub(masters, moves))
            if unscale is not None:
                skip = self.overflow > 0
                m, v, new = (
                    [torch.where(skip, a, b) for a, b in zip(old, moved, strict=True)]
                    for old, moved in ((old_m, m), (old_v, v), (masters, new))
                )
            if first == 0:
                self.count += 1 if unscale is None else 1 - self.overflow
            torch._foreach_copy_(old_m, m)
            torch._foreach_copy_(old_v, v)
            # One by one: a list of copies stays a kernel of its own, and all weights would go through memory again.
            for master, copy, p in zip(masters, copies, new, strict=True):
                master.copy_(p)
                if copy is not None:
                    copy.copy_(p)

    def _check(self, gradients: list[Tensor]) -> None:
        """Whether any gradient overflowed, and the scale of the next step."""
        assert self.scale is not None
        sums = torch._foreach_norm(gradients, 1, dtype=torch.float32)  # finite where all gradients are
        self.overflow.copy_(~torch.stack(sums).isfinite().all())
        torch._amp_update_scale_(self.scale, self.growth, self.overflow, 2.0, 0.5, 2000)
        self.skipped += self.overflow.to(torch.int64)

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = {"m": self.m, "v": self.v, "count": self.count, "learning_rate": self.learning_rate}
        if self.scale is not None:
            state |= {"scale": self.scale, "growth": self.growth, "skipped": self.skipped}
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in ("m", "v"):
            for tensor, saved in zip(getattr(self, name), state[name], strict=True):
                tensor.copy_(saved)
        for name in ("count", "learning_rate", *(("scale", "growth", "skipped") if self.scale is not None else ())):
            getattr(self, name).copy_(state[name])
