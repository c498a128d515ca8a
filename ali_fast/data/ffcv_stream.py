"""FFCV's reader thread, guarded. The only module of this package that imports ffcv; importing it takes seconds.

What FFCV 1.0.2 does by itself, and what is done about it here:
- a fault in its thread leaves the consumer waiting for ever: `run` hands the fault over, `__next__` raises it;
- leaving an epoch early leaks the thread: `close` stops and joins it;
- it reads through a memory map, so a file cut short kills the process by SIGBUS: `_Read` uses pread and counts;
- it sets torch's thread count wherever it can: it may not;
- with a GPU it records events and waits on streams from its thread, which a CUDA graph's capture does not survive, and
  lets a pinned buffer be overwritten while a copy from it is queued: here it hands out CPU arrays and knows no GPU.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from queue import Empty, Full
from typing import Any

import numpy as np
import torch

from ali_fast.data.schema import Field

_threads = torch.get_num_threads()
import ffcv.loader.epoch_iterator  # noqa: E402
from ffcv.fields.basics import FloatDecoder, IntDecoder  # noqa: E402
from ffcv.fields.ndarray import NDArrayDecoder  # noqa: E402
from ffcv.loader import Loader, OrderOption  # noqa: E402
from ffcv.loader.epoch_iterator import EpochIterator  # noqa: E402
from ffcv.pipeline.compiler import Compiler  # noqa: E402
from ffcv.transforms import ToTensor  # noqa: E402

torch.set_num_threads(_threads)
Compiler.set_num_threads = classmethod(lambda cls, count: None)
ffcv.loader.epoch_iterator.IS_CUDA = False

_pread = ctypes.CDLL(None).pread
_pread.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int64]
_pread.restype = ctypes.c_ssize_t


class ShortReadError(OSError):
    """The file ended, or could not be read, where a sample should be."""


class ReaderError(OSError):
    """The thread that reads has failed, of whatever is its cause."""


class _Read(NDArrayDecoder):
    """Decodes an array field by reading it, sample by sample, from an open file. Compiled by FFCV (numba)."""

    def __init__(self, fd: int):
        super().__init__()
        self.fd = fd

    def generate_code(self) -> Callable[..., np.ndarray]:
        fd, size, pread = self.fd, int(self.field.element_size), _pread

        def read(indices: Any, destination: Any, metadata: Any, storage_state: Any) -> Any:
            for row in range(indices.shape[0]):
                if pread(fd, destination[row].ctypes.data, size, metadata[indices[row]]) != size:
                    raise EOFError
            return destination

        return read


class Stream(EpochIterator):
    """One epoch's batches, read ahead by a thread: tuples of CPU tensors, valid until the next one is asked for."""

    fault: BaseException | None = None

    def run(self) -> None:
        try:
            for number, indices in enumerate(self.iter_ixes):
                slot = number % (self.loader.batches_ahead + 2)
                if not self._put((slot, self.run_pipeline(number, indices, slot, None))):
                    return
        except BaseException as fault:
            self.fault = fault
        self._put(None)

    def _put(self, item: object) -> bool:
        while not self.terminate_event.is_set():
            try:
                self.output_queue.put(item, timeout=0.1)
                return True
            except Full:
                pass
        return False

    def __next__(self) -> tuple[torch.Tensor, ...]:
        item = None
        while item is None:
            try:
                item = self.output_queue.get(timeout=1)
            except Empty:
                if self.is_alive() or not self.output_queue.empty():  # its last words may have come just now
                    continue
            if item is None:
                self.close()
                if isinstance(self.fault, EOFError):
                    raise ShortReadError from None
                if self.fault is not None:
                    raise ReaderError("FFCV's reader thread failed") from self.fault
                raise StopIteration
        return item[1]

    def close(self) -> None:
        """Stops the thread and waits for it: at most the time of the batch it is reading."""
        self.terminate_event.set()
        while self.is_alive():
            try:
                self.output_queue.get_nowait()
            except Empty:
                self.join(0.01)


def open_loader(fd: int, batch_size: int, fields: Sequence[Field]) -> Loader:
    """FFCV's loader over an open file that was checked before; `fields` are its manifest's."""
    decoders = {"array": lambda: _Read(fd), "int": IntDecoder, "float": FloatDecoder}
    pipelines = {field.name: [decoders[field.kind](), ToTensor()] for field in fields}
    return Loader(
        f"/proc/self/fd/{fd}",  # the very file that was checked, whatever its name stands for by now
        batch_size,
        num_workers=1,
        os_cache=True,
        order=OrderOption.SEQUENTIAL,
        seed=0,
        pipelines=pipelines,
    )
