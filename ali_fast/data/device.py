"""Host batches to the device, ahead of the step that needs them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator, Iterator
from typing import TypeVar

import torch

from ali_fast.data.samples import Samples

T = TypeVar("T")
SLOTS = 3  # one copied ahead, one in use, one whose step may be queued still


class Wait:
    """How long a device has stood without a batch, `seconds` in all: an upper bound, seen from the host.

    While the device still works on what was queued before, it waits for nothing, however long the host does.
    """

    def __init__(self, device: torch.device):
        self.device, self.seconds = device, 0.0

    def timed(self, batches: Iterator[T]) -> Generator[T, None, None]:
        """`batches`, each one's coming timed."""
        while True:
            asked = time.perf_counter()
            batch = next(batches, None)
            if self.device.type != "cuda" or torch.cuda.current_stream(self.device).query():
                self.seconds += time.perf_counter() - asked
            if batch is None:
                return
            yield batch


def to_device(batches: Iterator[Samples], device: torch.device) -> Generator[Samples, None, None]:
    """Yields each host batch on `device`, valid until the next one is asked for; on a CPU its memory is its own.

    On CUDA: pinned and device buffers of our own, a copy stream, and a host that is at most SLOTS steps ahead of the
    device, since it waits for the step that used a buffer before it fills that buffer again. FFCV's own copies to a GPU
    wait on the stream only, so a pinned buffer can change while a copy from it is still queued.
    """
    if device.type != "cuda":
        for batch in batches:
            yield batch.map(lambda tensor: tensor.to(device, copy=True))
        return
    computing, copying = torch.cuda.current_stream(device), torch.cuda.Stream(device)
    slots: deque[_Slot] = deque()
    try:
        for batch in batches:  # copied while the device computes on the ones before
            slot = slots.popleft() if len(slots) == SLOTS else _Slot(batch, device, copying)
            slots.append(slot)
            slot.fill(batch, copying)
            computing.wait_event(slot.copied)
            yield slot.batch
            slot.used.record(computing)
    finally:
        copying.synchronize()


class _Slot:
    """A pinned buffer, the device buffer it is copied to, and the events that say when each may be touched."""

    def __init__(self, like: Samples, device: torch.device, copying: torch.cuda.Stream):
        self.pinned = like.map(lambda tensor: torch.empty_like(tensor, pin_memory=True))
        self.batch = like.map(lambda tensor: torch.empty_like(tensor, device=device))
        self.copied = torch.cuda.Event()
        self.used = torch.cuda.Event()
        copying.wait_stream(torch.cuda.current_stream(device))  # whatever had this memory before

    def fill(self, batch: Samples, copying: torch.cuda.Stream) -> None:
        self.used.synchronize()
        with torch.cuda.stream(copying):
            for host, pinned, device in zip(batch, self.pinned, self.batch, strict=True):
                if host is not None and pinned is not None and device is not None:
                    pinned.copy_(host)
                    device.copy_(pinned, non_blocking=True)
            self.copied.record(copying)
