"""The players' Adams, which move together, and what mixed precision puts around them. Nothing waits for the device."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ali_fast.model import ALI


class Adams:
    """Adam for E and G, Adam for D (paper: lr 1e-4, betas 0.5 and 0.999), stepped from gradients at one point.

    A model without D has one Adam; a frozen network has none.

    `working` is the model the gradients were taken in; where it is a low-precision copy, its weights are renewed
    from the float32 masters after the step. With `loss_scale`, gradients come multiplied by `self.scale`: a step
    with a gradient that is not finite is skipped and counted on the device, and the scale adapts as GradScaler's.
    """

    def __init__(
        self,
        model: ALI,
        working: ALI,
        *,
        learning_rate: float,
        betas: tuple[float, float],
        loss_scale: bool = False,
    ):
        device = next(model.parameters()).device
        on_cuda = device.type == "cuda"
        self.masters = [*model.generator_parameters(), *model.discriminator_parameters()]
        copies = [*working.generator_parameters(), *working.discriminator_parameters()]
        pairs = zip(self.masters, copies, strict=True)
        self.casts = [(master, copy) for master, copy in pairs if master is not copy]
        self.optimizers = [
            torch.optim.Adam(
                parameters,
                # a tensor: a captured graph reads it anew at each replay
                lr=torch.tensor(learning_rate, device=device) if on_cuda else learning_rate,
                betas=betas,
                eps=1e-8,
                fused=True,
                capturable=on_cuda,
            )
            for parameters in (model.generator_parameters(), model.discriminator_parameters())
            if parameters
        ]
        for parameter in self.masters:
            parameter.grad = torch.zeros_like(parameter)
        self.scale: Tensor | None = None
        if loss_scale:
            self.scale = torch.full((), 2.0**16, device=device)
            self.growth = torch.zeros((), dtype=torch.int32, device=device)
            self.overflow = torch.zeros((), device=device)
            self.skipped = torch.zeros((), dtype=torch.int64, device=device)
            for optimizer in self.optimizers:
                optimizer.grad_scale, optimizer.found_inf = None, self.overflow  # type: ignore[attr-defined]

    @torch.no_grad()
    def step(self, generator: list[Tensor], discriminator: list[Tensor]) -> None:
        gradients: list[Any] = [parameter.grad for parameter in self.masters]
        torch._foreach_copy_(gradients, [*generator, *discriminator])
        if self.scale is not None:
            self.overflow.zero_()
            torch._amp_foreach_non_finite_check_and_unscale_(gradients, self.overflow, self.scale.reciprocal())
            torch._amp_update_scale_(self.scale, self.growth, self.overflow, 2.0, 0.5, 2000)
            self.skipped += self.overflow.to(torch.int64)
        for optimizer in self.optimizers:
            optimizer.step()
        if self.casts:
            masters, copies = zip(*self.casts, strict=True)
            torch._foreach_copy_(list(copies), list(masters))

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = {"adam": [optimizer.state_dict() for optimizer in self.optimizers]}
        if self.scale is not None:
            state |= {"scale": self.scale, "growth": self.growth, "skipped": self.skipped}
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for optimizer, saved in zip(self.optimizers, state["adam"], strict=True):
            optimizer.load_state_dict(saved)
        if self.scale is not None:
            for name in ("scale", "growth", "skipped"):
                getattr(self, name).copy_(state[name])
