"""The step's batches, epoch after epoch: streamed, or the numbers of samples that the device holds."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing

import torch
from torch import Tensor

from ali_fast.data.device import Wait, to_device
from ali_fast.data.loader import BetonLoader
from ali_fast.data.resident import ResidentSet


class Source:
    """The same samples in the same order either way.

    Attributes: samples (resident: uint8 [count, H, W, C] on the device; None of a stream), wait.
    """

    def __init__(self, loader: BetonLoader, device: torch.device, resident: bool):
        self.loader, self.device, self.wait = loader, device, Wait(device)
        self.held = ResidentSet(loader, device) if resident else None
        self.samples = None if self.held is None else self.held.samples.images
        if self.held is None:
            loader.compile()

    def epoch(self, epoch: int, start: int = 0) -> Generator[Tensor, None, None]:
        """An epoch's batches from number `start` on: images uint8 [B, H, W, C]; resident: int64 [B] into `samples`."""
        if self.held is not None:
            yield from self.wait.timed(self.held.rows(epoch, start))
            return
        with closing(self.loader.epoch(epoch, start)) as batches:
            for batch in to_device(self.wait.timed(batches), self.device):
                yield batch.images

    def batches(self, step: int) -> Generator[Tensor, None, None]:
        """Every batch from the run's step number `step` on, without end."""
        epoch, start = divmod(step, len(self.loader))
        while True:
            with closing(self.epoch(epoch, start)) as batches:
                yield from batches
            epoch, start = epoch + 1, 0
