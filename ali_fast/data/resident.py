"""A whole split as uint8 on the device: no reading, no copying and no host work in the steps that use it."""

from __future__ import annotations

from collections.abc import Generator
from functools import partial

import torch
from torch import Tensor

from ali_fast.data.device import DeviceBatch, each
from ali_fast.data.loader import BetonLoader
from ali_fast.data.schema import Manifest

CHUNK = 1 << 14  # samples read at once while filling


def resident_bytes(manifest: Manifest) -> int:
    """What a split takes on the device."""
    sample = 16 if manifest.shape == (2,) else torch.Size(manifest.shape).numel()
    return manifest.count * (sample + 8 * bool(manifest.classes) + len(manifest.attributes))


class ResidentSet:
    """Filled from the beton by one sequential pass, without FFCV; afterwards the file may go.

    `epoch` gives the batches that the stream would: the same samples in the same order. For a captured step, `samples`
    and `indices` are what to gather from and by.

    Attributes: samples (the split in file order, on the device), order.
    """

    def __init__(self, loader: BetonLoader, device: torch.device):
        self.order = loader.order
        count = loader.manifest.count
        first = loader.read(0, min(CHUNK, count))
        self.samples = each(lambda t: torch.empty((count, *t.shape[1:]), dtype=t.dtype, device=device), first)
        for start in range(0, count, CHUNK):
            chunk = first if start == 0 else loader.read(start, min(start + CHUNK, count))
            for whole, part in zip(self.samples, chunk, strict=True):
                if whole is not None and part is not None:
                    whole[start : start + len(part)].copy_(part)

    def __len__(self) -> int:
        """Batches an epoch."""
        return len(self.order)

    def indices(self, epoch: int, start: int = 0) -> Tensor:
        """Samples of an epoch's batches from number `start` on: int64 [len - start, B], on the device."""
        indices = torch.from_numpy(self.order.epoch(epoch, start)).to(self.samples.images.device)
        return indices.view(-1, self.order.batch_size)

    def epoch(self, epoch: int, start: int = 0) -> Generator[DeviceBatch, None, None]:
        """The batches of an epoch, from number `start` on, in memory of their own."""
        for batch in self.indices(epoch, start):
            yield each(partial(torch.index_select, dim=0, index=batch), self.samples)
