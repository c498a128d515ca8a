"""A trained ALI as a tool: sample, encode, decode, reconstruct, interpolate.

Inference uses the batch norms' running statistics and no dropout; a result does not depend on what else is in the
batch. Images are uint8 [N, H, W, C] in the data set's own shape; codes are float32 [N, L]; all on the CPU.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ali_fast.errors import InputError
from ali_fast.model import ALI
from ali_fast.pixels import to_images, to_x

CHUNK = 256  # images at a time: bounds memory, changes no result beyond rounding


class Codes(NamedTuple):
    """q(z|x) of N images: z_hat ~ N(mu, exp(log_sigma)^2)."""

    mu: Tensor
    """float32 [N, L]."""
    log_sigma: Tensor
    """float32 [N, L]."""

    def sample(self, seed: int = 0) -> Tensor:
        """z_hat = mu + exp(log_sigma) * eps, float32 [N, L]."""
        return self.mu + self.log_sigma.exp() * normal(self.mu.shape, seed)


def normal(shape: tuple[int, ...], seed: int) -> Tensor:
    """N(0, I) from a generator of its own, the same on every device."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class Inference:
    """Wraps a model, also one in training: its mode is put back after every call.

    image_shape: (H, W, C) of the data set; the networks see these images padded to their size, and what they
    draw is cut back to it.
    """

    def __init__(self, model: ALI, image_shape: tuple[int, int, int]) -> None:
        self.model = model
        self.image_shape = image_shape
        self.device = next(model.parameters()).device

    def sample(self, n: int, seed: int = 0) -> Tensor:
        """n images G(z), z ~ N(0, I): uint8 [n, H, W, C]."""
        return self.decode(normal((n, self.model.architecture.z_dim), seed))

    def encode(self, images: Tensor | np.ndarray) -> Codes:
        """uint8 [N, H, W, C] (or [N, H, W] for gray) -> q(z|x). Raises InputError without an encoder: a GAN's."""
        if not self.model.players.encoder:
            raise InputError(
                "a GAN has no encoder: train one by --objective post-hoc, or inverse, --decoder-from its run"
            )
        images = self._checked(images)
        size = self.model.architecture.image_size

        def infer(chunk: Tensor) -> Tensor:
            return torch.cat(self.model.infer(to_x(chunk, size)), dim=1).flatten(1)

        return Codes(*self._in_chunks(infer, images).chunk(2, dim=1))

    def classify(self, images: Tensor | np.ndarray) -> Tensor:
        """The likeliest class of K by D(x, mu(x)), of a semi-supervised run: int64 [N]."""
        size = self.model.architecture.image_size

        def judge(chunk: Tensor) -> Tensor:
            x = to_x(chunk, size)
            return self.model.discriminator(x, self.model.infer(x)[0]).argmax(dim=1)

        return self._in_chunks(judge, self._checked(images))

    def decode(self, z: Tensor | np.ndarray) -> Tensor:
        """float [N, L] -> uint8 [N, H, W, C]."""
        z = torch.as_tensor(z, dtype=torch.float32)
        z_dim = self.model.architecture.z_dim
        if z.ndim != 2 or z.shape[1] != z_dim:
            raise InputError(f"codes of shape {list(z.shape)}: [N, {z_dim}] is expected")

        def generate(chunk: Tensor) -> Tensor:
            return self._cut(to_images(self.model.decoder(chunk[:, :, None, None])))

        return self._in_chunks(generate, z)

    def reconstruct(self, images: Tensor | np.ndarray) -> Tensor:
        """x_hat = G(mu(x)): uint8 [N, H, W, C]."""
        return self.decode(self.encode(images).mu)

    def interpolate(
        self, first: Tensor | np.ndarray, last: Tensor | np.ndarray, steps: int = 8, seed: int = 0
    ) -> Tensor:
        """Decode `steps` equidistant points from sampled codes of `first` to those of `last`, both [N, H, W, C].

        Returns uint8 [N, steps, H, W, C].
        """
        start, end = self.encode(first).sample(seed), self.encode(last).sample(seed + 1)
        z = torch.lerp(start[:, None], end[:, None], torch.linspace(0, 1, steps)[None, :, None])
        return self.decode(z.flatten(0, 1)).unflatten(0, (len(start), steps))

    def reconstruction_error(self, images: Tensor | np.ndarray) -> float:
        """Mean squared difference of x and G(mu(x)), pixels in [0, 1]."""
        x, x_hat = self._checked(images).double() / 255, self.reconstruct(images).double() / 255
        return float((x - x_hat).square().mean())

    def _checked(self, images: Tensor | np.ndarray) -> Tensor:
        images = torch.as_tensor(images)
        if images.ndim == 3 and self.image_shape[2] == 1:
            images = images[..., None]
        if images.dtype != torch.uint8 or images.ndim != 4 or tuple(images.shape[1:]) != self.image_shape:
            raise InputError(
                f"images of {images.dtype} {list(images.shape)}: "
                f"torch.uint8 [N, {', '.join(map(str, self.image_shape))}] is expected"
            )
        return images

    def _cut(self, images: Tensor) -> Tensor:
        """Undo the padding of `to_x`."""
        height, width, _ = self.image_shape
        top, left = (images.shape[1] - height) // 2, (images.shape[2] - width) // 2
        return images[:, top : top + height, left : left + width]

    def _in_chunks(self, function: Callable[[Tensor], Tensor], values: Tensor) -> Tensor:
        with self._evaluating():
            chunks = [function(chunk.to(self.device)).cpu() for chunk in values.split(CHUNK)]
        return torch.cat(chunks)

    @contextlib.contextmanager
    def _evaluating(self) -> Iterator[None]:
        training = self.model.training
        self.model.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            self.model.train(training)
