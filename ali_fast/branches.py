"""ALI's turn with E beside G: on a GPU, two branches of one CUDA graph.

At batch 100 no kernel of either fills a large GPU, and E and G need nothing of each other but D between their forward
and their backward. So the turn is three programs instead of one, E's forward and backward on a stream of their own: on
an H200 an eighth of cifar10's step. Each is traced whole; the arithmetic is that of `ali_fast.objective.ali`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ali_fast import objective, weight_gradients
from ali_fast.capture import compiled
from ali_fast.layers import Statistics
from ali_fast.pixels import to_x

if TYPE_CHECKING:
    from ali_fast.step import Step


class Branches:
    """Called as `Step.turn`: the generator's and the discriminator's gradients; metrics and running statistics move."""

    def __init__(self, step: Step, compile: bool, overlap_weight_gradients: bool):
        self.step = step
        self.side = torch.cuda.Stream(step.device) if step.device.type == "cuda" else None

        def program(function: Callable[..., tuple], in_line: int = 0) -> Callable[..., tuple]:
            aside = weight_gradients.options(in_line) if overlap_weight_gradients else {}
            return compiled(function, step.device, {**step.options, **aside}) if compile else function

        self.encode, self.decode = program(self._encode), program(self._decode)
        self.judge = program(self._judge, in_line=2)  # grad_x, grad_z
        working = step.working
        self.theta_e, self.theta_g = list(working.encoder.parameters()), list(working.decoder.parameters())
        assert [*map(id, self.theta_e), *map(id, self.theta_g)] == [*map(id, working.generator_parameters())]

    def __call__(
        self, batch: Tensor, z: Tensor, seeds: Tensor, rows: None = None, y: None = None
    ) -> tuple[list[Tensor], list[Tensor]]:
        assert rows is y is None, "ALI itself"
        with self.on_side():
            x, z_joint, *of_encoder = self.encode(batch, z, seeds)
        x_tilde, *of_decoder = self.decode(z, seeds)
        self.join()
        made = [made.detach().requires_grad_() for made in (x_tilde, z_joint)]
        grad_x, grad_z, *grads_d = self.judge(x, *made, seeds, of_encoder, of_decoder)
        with self.on_side():
            grads_e = torch.autograd.grad([z_joint], self.theta_e, [grad_z])
            weight_gradients.join()
        grads_g = torch.autograd.grad([x_tilde], self.theta_g, [grad_x])
        self.join()
        # Every tensor that crosses streams lives up to here: neither stream's memory is reused under the other.
        return [*grads_e, *grads_g], grads_d

    @contextlib.contextmanager
    def on_side(self) -> Iterator[None]:
        """On the side stream, behind what the current one has been given."""
        if self.side is None:
            yield
            return
        self.side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.side):
            yield

    def join(self) -> None:
        if self.side is not None:
            torch.cuda.current_stream().wait_stream(self.side)

    def _encode(self, batch: Tensor, z: Tensor, seeds: Tensor) -> tuple:
        statistics: Statistics = []
        step = self.step
        x = to_x(step.images(batch), step.model.architecture.image_size, step.dtype)
        codes, z_joint = objective.encode(step.working, x, z, seeds, statistics)
        return x, z_joint, objective.mean_sigma(codes), *_detached(statistics)

    def _decode(self, z: Tensor, seeds: Tensor) -> tuple:
        statistics: Statistics = []
        x_tilde = self.step.working.decoder(z, seeds, statistics)
        return x_tilde, *_detached(statistics)

    def _judge(
        self,
        x: Tensor,
        x_tilde: Tensor,
        z_joint: Tensor,
        seeds: Tensor,
        of_encoder: list[Tensor],
        of_decoder: list[Tensor],
    ) -> tuple:
        step = self.step
        statistics: Statistics = []
        stats, grads_d, (grad_x, grad_z) = objective.judge(
            step.working, x, x_tilde, z_joint, [x_tilde, z_joint], seeds, statistics, step.route, None
        )
        sigma, *of_encoder = of_encoder
        earlier = [*_pairs(of_encoder), *_pairs(of_decoder)]
        step.accumulate(objective.Outcome(torch.cat([stats, sigma[None]]), [], [], [*earlier, *statistics]))
        return grad_x, grad_z, *grads_d


def _detached(statistics: Statistics) -> list[Tensor]:
    """Flat: what a compiled program hands on."""
    return [tensor.detach() for pair in statistics for tensor in pair]


def _pairs(flat: list[Tensor]) -> Statistics:
    return [*zip(flat[::2], flat[1::2], strict=True)]
