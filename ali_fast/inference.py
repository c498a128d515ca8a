"""A trained ALI as a tool: sample, encode, decode, reconstruct, interpolate.

Inference uses the batch norms' running statistics and no dropout; a result does not depend on what else is in the
batch. Images are uint8 [N, H, W, C] in the data set's own shape; codes are float32 [N, L]; all on the CPU.

A conditional run is told y of every image: int64 [N], classes, or [N, K], attributes (0 or 1) or classes one-hot. It
requires that, and no other run takes it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ali_fast.condition import Condition, to_y
from ali_fast.errors import InputError
from ali_fast.model import ALI
from ali_fast.pixels import to_images, to_x
from ali_fast.seeds import seed_of

CHUNK = 256  # images at a time: bounds memory, changes no result beyond rounding

Given = Tensor | np.ndarray


class Codes(NamedTuple):
    """q(z|x) of N images: z_hat ~ N(mu, exp(log_sigma)^2)."""

    mu: Tensor
    """float32 [N, L]."""
    log_sigma: Tensor
    """float32 [N, L]."""

    def sample(self, seed: int = 0) -> Tensor:
        """z_hat = mu + exp(log_sigma) * eps, float32 [N, L]."""
        return self.mu + self.log_sigma.exp() * normal("eps", self.mu.shape, seed)


def normal(what: str, shape: tuple[int, ...], seed: int) -> Tensor:
    """N(0, I), the same on every device; of each seed, every `what` has a stream of its own."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed_of(what, seed)), dtype=torch.float32)


class Inference:
    """Wraps a model, also one in training: its mode is put back after every call.

    image_shape: (H, W, C) of the data set; the networks see these images padded to their size, and what they
    draw is cut back to it. condition: of a conditional model, what the values of y stand for. step, trained_on: of the
    checkpoint, and how the sha256 of its training images begins, where they are known.
    """

    def __init__(
        self,
        model: ALI,
        image_shape: tuple[int, int, int],
        condition: Condition | None = None,
        step: int | None = None,
        trained_on: str | None = None,
    ) -> None:
        assert (condition is None) == (model.y_dim is None)
        self.model = model
        self.image_shape = image_shape
        self.condition = condition
        self.step, self.trained_on = step, trained_on
        self.device = next(model.parameters()).device

    def sample(self, n: int, seed: int = 0, y: Given | None = None) -> Tensor:
        """n images G(z), z ~ N(0, I): uint8 [n, H, W, C]."""
        if not isinstance(n, int | np.integer) or n < 1:
            raise InputError(f"{n} samples: a whole number, at least 1, is expected")
        return self.decode(normal("z", (n, self.model.architecture.z_dim), seed), y)

    def encode(self, images: Given, y: Given | None = None) -> Codes:
        """uint8 [N, H, W, C] (or [N, H, W] for gray) -> q(z|x). Raises InputError without an encoder: a GAN's."""
        if not self.model.players.encoder:
            raise InputError(
                "a GAN has no encoder: train one by --objective post-hoc, or inverse, --decoder-from its run"
            )
        images = self._checked(images)
        size = self.model.architecture.image_size

        def infer(chunk: Tensor, *y: Tensor) -> Tensor:
            return torch.cat(self.model.infer(to_x(chunk, size), *y), dim=1).flatten(1)

        return Codes(*self._in_chunks(infer, images, *self._told(y, len(images))).chunk(2, dim=1))

    def classify(self, images: Given) -> Tensor:
        """The likeliest class of K by D(x, mu(x)): int64 [N]. Raises InputError unless the run is semi-supervised."""
        if self.model.classes is None:
            raise InputError(f"a run of objective {self.model.objective} has no classes: semi-supervised has")
        size = self.model.architecture.image_size

        def judge(chunk: Tensor) -> Tensor:
            x = to_x(chunk, size)
            return self.model.discriminator(x, self.model.infer(x)[0]).argmax(dim=1)

        return self._in_chunks(judge, self._checked(images))

    def decode(self, z: Given, y: Given | None = None) -> Tensor:
        """float [N, L] -> uint8 [N, H, W, C]."""
        z = _tensor(z, "codes")
        z_dim = self.model.architecture.z_dim
        if z.ndim != 2 or z.shape[1] != z_dim or not len(z) or z.is_complex():
            kind = f"{z.dtype} " if z.is_complex() else "shape "
            raise InputError(f"codes of {kind}{list(z.shape)}: [N, {z_dim}] is expected")
        z = z.to(torch.float32)

        def generate(chunk: Tensor, *y: Tensor) -> Tensor:
            return self._cut(to_images(self.model.generate(chunk[:, :, None, None], *y)))

        return self._in_chunks(generate, z, *self._told(y, len(z)))

    def reconstruct(self, images: Given, y: Given | None = None) -> Tensor:
        """x_hat = G(mu(x)): uint8 [N, H, W, C]."""
        return self.decode(self.encode(images, y).mu, y)

    def interpolate(
        self, first: Given, last: Given, steps: int = 8, seed: int = 0, y: tuple[Given, Given] | None = None
    ) -> Tensor:
        """Decode `steps` equidistant points from sampled codes of `first` to those of `last`, both [N, H, W, C].

        y: of both, and as linear on the way. Returns uint8 [N, steps, H, W, C].
        """
        first, last = self._checked(first), self._checked(last)
        if len(first) != len(last):
            raise InputError(f"from {len(first)} images to {len(last)}: as many are expected")
        if not isinstance(steps, int | np.integer) or steps < 1:
            raise InputError(f"{steps} steps: a whole number, at least 1, is expected")
        if y is not None and not (isinstance(y, tuple) and len(y) == 2):
            raise InputError("y has to be a pair: that of the first images, and that of the last")
        of_first, of_last = (None, None) if y is None else y
        start, end = self.encode(first, of_first).sample(seed), self.encode(last, of_last).sample(seed + 1)
        share = torch.linspace(0, 1, steps, dtype=torch.float32)[None, :, None]
        z = torch.lerp(start[:, None], end[:, None], share).flatten(0, 1)
        told = zip(self._told(of_first, len(start)), self._told(of_last, len(start)), strict=True)
        ways = [torch.lerp(a.flatten(1)[:, None], b.flatten(1)[:, None], share).flatten(0, 1) for a, b in told]
        return self.decode(z, *ways).unflatten(0, (len(start), steps))

    def reconstruction_error(self, images: Given, y: Given | None = None) -> float:
        """Mean squared difference of x and G(mu(x)), pixels in [0, 1]."""
        x, x_hat = self._checked(images).double() / 255, self.reconstruct(images, y).double() / 255
        return float((x - x_hat).square().mean())

    def classification_error(self, images: Given, labels: Given) -> float:
        """Share of images whose `classify` is not their label; labels: integers [N]."""
        labels = _tensor(labels, "labels")
        if labels.shape != (len(images),) or labels.is_floating_point() or labels.is_complex():
            raise InputError(
                f"labels of {labels.dtype} {list(labels.shape)} for {len(images)} images: a whole number of each is "
                f"expected"
            )
        return float((self.classify(images) != labels).double().mean())

    def _told(self, y: Given | None, count: int) -> tuple[Tensor, ...]:
        """y of `count` images as the networks take it, float32 [count, K, 1, 1]; nothing of a run without condition."""
        if self.condition is None:
            if y is not None:
                raise InputError(
                    f"a run of objective {self.model.objective} is told nothing of its images: leave y out"
                )
            return ()
        names = self.condition.names
        kinds = f"{self.condition.kind} of each image, such as {', '.join(names[:3])}"
        if y is None:
            raise InputError(f"this run is conditional: it has to be told the {kinds}")
        y = _tensor(y, "y")
        labels = y.ndim == 1 and not y.is_floating_point() and self.condition.kind == "classes"
        if y.ndim == 0 or len(y) != count or not (labels or y.shape[1:] == (len(names),)):
            raise InputError(
                f"y of shape {list(y.shape)} for {count} images: [N, {len(names)}] is expected, the {kinds}"
            )
        if labels and not ((y >= 0) & (y < len(names))).all():
            raise InputError(f"y has classes from {int(y.min())} to {int(y.max())}: there are 0 to {len(names) - 1}")
        if not labels:
            whole = self.condition.kind == "attributes" or (y.double().sum(dim=1) - 1).abs().max() < 1e-3
            if not (whole and ((y >= 0) & (y <= 1)).all()):
                one = "" if self.condition.kind == "attributes" else ", one 1 a row"
                raise InputError(f"y has rows of other values than 0 and 1{one}, or what lies between two such rows")
        return (to_y(y.long() if labels else y, len(names)),)

    def _checked(self, images: Given) -> Tensor:
        images = _tensor(images, "images")
        given = list(images.shape)
        if images.ndim == 3 and self.image_shape[2] == 1:
            images = images[..., None]
        if (
            images.dtype != torch.uint8
            or images.ndim != 4
            or tuple(images.shape[1:]) != self.image_shape
            or not len(images)
        ):
            raise InputError(
                f"images of {images.dtype} {given}: "
                f"torch.uint8 [N, {', '.join(map(str, self.image_shape))}] is expected"
            )
        return images

    def _cut(self, images: Tensor) -> Tensor:
        """Undo the padding of `to_x`."""
        height, width, _ = self.image_shape
        top, left = (images.shape[1] - height) // 2, (images.shape[2] - width) // 2
        return images[:, top : top + height, left : left + width]

    def _in_chunks(self, function: Callable[..., Tensor], *values: Tensor) -> Tensor:
        with self._evaluating():
            parts = zip(*(value.split(CHUNK) for value in values), strict=True)
            chunks = [function(*(part.to(self.device) for part in chunk)).cpu() for chunk in parts]
        return torch.cat(chunks)

    @contextlib.contextmanager
    def _evaluating(self) -> Iterator[None]:
        training = self.model.training
        self.model.eval()
        try:
            with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
                yield
        finally:
            self.model.train(training)


def _tensor(values: Given, what: str) -> Tensor:
    """Raises InputError for what is no array of numbers. An array that torch does not take as it is is copied: a view
    that runs backwards (a flipped image), one that may not be written, another machine's bytes, unsigned numbers."""
    try:
        if isinstance(values, np.ndarray):
            wide = values.dtype.kind == "u" and values.dtype.itemsize > 1  # torch can hold them, and not compare them
            dtype = np.dtype(np.int64) if wide else values.dtype.newbyteorder("=")
            values = np.array(values, dtype, order="C", copy=None if values.flags.writeable else True)
        return torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError):
        raise InputError(f"{what} of type {type(values).__name__}: a tensor or array of numbers is expected") from None
