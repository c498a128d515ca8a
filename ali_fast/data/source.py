"""The step's batches, epoch after epoch: streamed, or the numbers of samples that the device holds.

A batch is what a step is called with: images uint8 [B, H, W, C], of a conditional run followed by their y; where the
device holds the samples, int64 [B] alone, which of them to take.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing

import torch
from torch import Tensor

from ali_fast.data.device import Wait, to_device
from ali_fast.data.loader import BetonLoader
from ali_fast.data.resident import ResidentSet

Batch = tuple[Tensor, ...]


class Source:
    """The same samples in the same order either way.

    Attributes: samples, and of a conditional run's samples_y (resident: all of them, on the device; None of a stream),
    wait.
    """

    def __init__(self, loader: BetonLoader, device: torch.device, resident: bool, conditional: bool = False):
        self.loader, self.device, self.conditional, self.wait = loader, device, conditional, Wait(device)
        self.held = ResidentSet(loader, device) if resident else None
        self.samples = None if self.held is None else self.held.samples.images
        self.samples_y = self.held.samples.y if self.held is not None and conditional else None
        if self.held is None:
            loader.compile()

    def epoch(self, epoch: int, start: int = 0) -> Generator[Batch, None, None]:
        """An epoch's batches from number `start` on."""
        if self.held is not None:
            for rows in self.wait.timed(self.held.rows(epoch, start)):
                yield (rows,)
            return
        with closing(self.loader.epoch(epoch, start)) as batches:
            for batch in self.wait.timed(to_device(batches, self.device)):
                y = batch.y if self.conditional else None
                yield (batch.images,) if y is None else (batch.images, y)

    def batches(self, step: int) -> Generator[Batch, None, None]:
        """Every batch from the run's step number `step` on, without end."""
        epoch, start = divmod(step, len(self.loader))
        while True:
            with closing(self.epoch(epoch, start)) as batches:
                yield from batches
            epoch, start = epoch + 1, 0
