"""A whole split as uint8 on the device: no reading, no copying and no host work in the steps that use it."""

from __future__ import annotations

from collections.abc import Generator
from functools import partial

import torch
from torch import Tensor

from ali_fast.data.loader import BetonLoader
from ali_fast.data.samples import Samples
from ali_fast.data.schema import Manifest

CHUNK = 1 << 14  # samples read at once while filling


def resident_bytes(manifest: Manifest) -> int:
    """What a split takes on the device."""
    return manifest.count * sum(field.size for field in manifest.fields)


class ResidentSet:
    """Filled from the beton by one sequential pass, without FFCV; afterwards the file may go.

    `epoch` gives the batches that the stream would: the same samples in the same order. For a captured step, `samples`
    and `indices` are what to gather from and by.

    Attributes: samples (the split in file order, on the device), order.
    """

    def __init__(self, loader: BetonLoader, device: torch.device):
        self.order, self.device = loader.order, device
        self.copying = torch.cuda.Stream(device) if device.type == "cuda" else None
        count = loader.manifest.count
        first = loader.read(0, min(CHUNK, count))
        self.samples = first.map(lambda t: torch.empty((count, *t.shape[1:]), dtype=t.dtype, device=device))
        for start in range(0, count, CHUNK):
            chunk = first if start == 0 else loader.read(start, min(start + CHUNK, count))
            for whole, part in zip(self.samples, chunk, strict=True):
                if whole is not None and part is not None:
                    whole[start : start + len(part)].copy_(part)

    def __len__(self) -> int:
        """Batches an epoch."""
        return len(self.order)

    def rows(self, epoch: int, start: int = 0) -> Generator[Tensor, None, None]:
        """`indices`, row by row, uploaded when the first is asked for."""
        yield from self.indices(epoch, start)

    def indices(self, epoch: int, start: int = 0) -> Tensor:
        """Samples of an epoch's batches from number `start` on: int64 [len - start, B], on the device.

        On CUDA neither the host nor the steps that are queued wait for the copy; what is queued afterwards does.
        """
        indices = torch.from_numpy(self.order.epoch(epoch, start)).view(-1, self.order.batch_size)
        if self.copying is None:
            return indices.to(self.device)
        with torch.cuda.stream(self.copying):
            copied = indices.pin_memory().to(self.device, non_blocking=True)
        computing = torch.cuda.current_stream(self.device)
        computing.wait_stream(self.copying)
        copied.record_stream(computing)
        return copied

    def epoch(self, epoch: int, start: int = 0) -> Generator[Samples, None, None]:
        """The batches of an epoch, from number `start` on, in memory of their own."""
        for batch in self.indices(epoch, start):
            yield self.samples.map(partial(torch.index_select, dim=0, index=batch))
