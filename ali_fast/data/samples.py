"""Some of a split's samples as tensors: a batch, or all of them, wherever they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor


class Samples(NamedTuple):
    """B samples, channels last as they are stored. images: uint8 [B, H, W, C], or points: float64 [B, 2]."""

    images: Tensor
    labels: Tensor | None = None  # int64 [B]
    attributes: Tensor | None = None  # uint8 [B, A]

    @property
    def y(self) -> Tensor | None:
        """What a conditional model is told of the samples: labels int64 [B], else attributes uint8 [B, A]."""
        return self.attributes if self.labels is None else self.labels

    def map(self, change: Callable[[Tensor], Tensor]) -> Samples:
        """What `change` makes of each tensor that is there."""
        labels, attributes = (None if tensor is None else change(tensor) for tensor in self[1:])
        return Samples(change(self.images), labels, attributes)
