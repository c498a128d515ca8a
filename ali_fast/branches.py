"""ALI's step with E beside G, and each player's Adam on its own line: on a GPU, branches of one CUDA graph.

At batch 100 no kernel of either fills a large GPU, and E and G need nothing of each other but D between their forward
and their backward. So the turn is three programs instead of one, E's forward and backward on a stream of their own: on
an H200 an eighth of cifar10's step. Each is traced whole; the arithmetic is that of `ali_fast.objective.ali`.

Adam moves memory and computes next to nothing. D, the largest player, moves while E and G run back, when nobody reads
its weights any more. What that gains awaits a GPU.
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
    """Called as `Step.move`: a turn, and what it moves: players, metrics and running statistics."""

    def __init__(self, step: Step, compile: bool, overlap_weight_gradients: bool):
        self.step = step
        on_cuda = step.device.type == "cuda"
        self.line_of_e, self.line_of_d = (torch.cuda.Stream(step.device) if on_cuda else None for _ in range(2))

        def program(function: Callable[..., tuple], in_line: int = 0) -> Callable[..., tuple]:
            aside = weight_gradients.options(in_line) if overlap_weight_gradients else {}
            return compiled(function, step.device, {**step.options, **aside}) if compile else function

        self.encode, self.decode = program(self._encode), program(self._decode)
        self.judge = program(self._judge, in_line=2)  # grad_x, grad_z
        working = step.working
        self.theta_e, self.theta_g = list(working.encoder.parameters()), list(working.decoder.parameters())
        assert [*map(id, self.theta_e), *map(id, self.theta_g)] == [*map(id, working.generator_parameters())]

    def __call__(self, batch: Tensor, z: Tensor, seeds: Tensor, rows: None, y: None) -> None:
        assert rows is y is None, "ALI itself"
        adam = self.step.adam
        with self.beside(self.line_of_e):
            x, z_joint, *of_encoder = self.encode(batch, z, seeds)
            factors = adam.factors()
        x_tilde, *of_decoder = self.decode(z, seeds)
        self.join(self.line_of_e)
        made = [made.detach().requires_grad_() for made in (x_tilde, z_joint)]
        grad_x, grad_z, *grads_d = self.judge(x, *made, seeds, of_encoder, of_decoder)
        weight_gradients.let_wait(self.line_of_d)
        with self.beside(self.line_of_d):
            adam.update(len(self.theta_e) + len(self.theta_g), grads_d, *factors, None)
        with self.beside(self.line_of_e):
            grads_e = torch.autograd.grad([z_joint], self.theta_e, [grad_z])
            weight_gradients.join()
            adam.update(0, list(grads_e), *factors, None)
        grads_g = torch.autograd.grad([x_tilde], self.theta_g, [grad_x])
        weight_gradients.join()
        adam.update(len(self.theta_e), list(grads_g), *factors, None)
        self.join(self.line_of_e, self.line_of_d)
        # Every tensor that crosses streams lives up to here: no stream's memory is reused under another.

    @contextlib.contextmanager
    def beside(self, stream: torch.cuda.Stream | None) -> Iterator[None]:
        """On that stream, behind what the current one has been given."""
        if stream is None:
            yield
            return
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            yield

    def join(self, *streams: torch.cuda.Stream | None) -> None:
        for stream in streams:
            if stream is not None:
                torch.cuda.current_stream().wait_stream(stream)

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
