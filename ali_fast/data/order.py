"""In which order a split's samples are seen: a function of (seed, epoch) alone, for the stream and the resident set."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from ali_fast.errors import InputError


def ffcv_seed(seed: int) -> int:
    """The seed FFCV's loader would need for the same order. FFCV adds the epoch to its seed, so that seed s's epoch
    e + 1 is seed s + 1's epoch e; hashed first, no two seeds of a run share an epoch."""
    return int.from_bytes(hashlib.sha256(f"ali-fast order {seed}".encode()).digest()[:6], "little")


@dataclass(frozen=True)
class Order:
    """Batches of `batch_size` samples a rank, of `count` in all; the last, incomplete one is left out.

    A step takes `world` batches that lie together in one common order, so a run sees the same images in the same steps
    on one device with batch B * world as on `world` devices with batch B.
    """

    count: int
    batch_size: int
    seed: int = 0
    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise InputError(f"batch size {self.batch_size}: it must be at least 1")
        if not len(self):
            raise InputError(
                f"--batch-size {self.batch_size * self.world}: larger than the set, which has {self.count} samples; "
                f"take at most {self.count // self.world * self.world}"
            )
        assert 0 <= self.rank < self.world

    def __len__(self) -> int:
        """Batches an epoch."""
        return self.count // (self.batch_size * self.world)

    def epoch(self, epoch: int, start: int = 0) -> np.ndarray:
        """This rank's samples of an epoch, from batch `start` on: int64 [(len - start) * batch_size]."""
        indices = np.random.default_rng(ffcv_seed(self.seed) + epoch).permutation(self.count)
        steps = indices[: len(self) * self.batch_size * self.world].reshape(len(self), self.world, self.batch_size)
        return steps[start:, self.rank].reshape(-1)
