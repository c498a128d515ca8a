"""A split's samples in order, checked, in chunks ready to be written.

Costly reads (decoding photographs) run ahead in processes, which are watched: whatever happens to one of them ends the
whole with one error.
"""

from __future__ import annotations

import ctypes
import gc
import math
import mmap
import multiprocessing
import os
import signal
import time
import warnings
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import NamedTuple

import numpy as np

from ali_fast.data import beton
from ali_fast.data.schema import Field
from ali_fast.errors import InputError
from data_prep.split import Sample, Split

CHUNK_BYTES = 1 << 20
CHUNK_SAMPLES = 64
WORTH_WORKERS_S = 2.0  # starting processes costs about 0.1 s; below this much reading they are not worth their noise


class Chunk(NamedTuple):
    """Samples that lie together."""

    arrays: np.ndarray  # uint8 [n, bytes of a sample's arrays]
    metadata: np.ndarray  # structured [n]; offsets are filled in when it is written
    faults: list[Fault]  # of those that cannot be read, where the split is to be read on


class Fault(NamedTuple):
    name: str
    what: str


def chunks(
    split: Split, fields: tuple[Field, ...], name: str, workers: int | None = None
) -> Generator[Chunk, None, None]:
    """The samples of the split called `name`, read by `workers` processes; 0 reads them here.

    By default as many as there are cores to use, if the first samples were slow. Raises InputError naming the sample
    that could not be read or is not what the split says.
    """
    sample_bytes = sum(field.size for field in beton.arrays_of(fields))
    length = max(1, min(CHUNK_SAMPLES, CHUNK_BYTES // max(1, sample_bytes)))
    starts = deque(range(0, split.count, length))
    job = _Job(split, fields, name, length)
    if workers is None:
        began = time.perf_counter()
        yield job(starts.popleft())
        worth = (time.perf_counter() - began) * len(starts) > WORTH_WORKERS_S
        workers = 0
        if worth:
            from joblib import cpu_count  # half a second; by affinity and a container's quota

            workers = cpu_count()
    if workers < 1:
        yield from map(job, starts)
    elif starts:
        yield from _in_processes(job, starts, workers)


@dataclass(frozen=True)
class _Job:
    """Reads and checks the chunk that starts at a sample."""

    split: Split
    fields: tuple[Field, ...]
    name: str
    length: int

    def __call__(self, start: int, reading: np.ndarray | None = None) -> Chunk:
        """`reading`, int64 [1], is kept at the sample it is at."""
        count = min(self.length, self.split.count - start)
        sample_bytes = sum(field.size for field in beton.arrays_of(self.fields))
        chunk = Chunk(np.empty((count, sample_bytes), np.uint8), np.zeros(count, beton.metadata_type(self.fields)), [])
        for row in range(count):
            if reading is not None:
                reading[:] = start + row
            try:
                sample = self.split.read(start + row)
            except InputError as fault:
                if not self.split.every_fault:
                    raise
                name = self.split.name(start + row)
                chunk.faults.append(Fault(name, str(fault).removeprefix(f"image {name}: ")))
                continue
            except Exception as error:
                raise self._wrong(start + row, f"{type(error).__name__}: {error}") from error
            self._store(sample, start + row, chunk.arrays[row], chunk.metadata[row : row + 1])
        return chunk

    def _store(self, sample: Sample, index: int, block: np.ndarray, metadata: np.ndarray) -> None:
        split = self.split
        used = 0
        for name, kind, shape in self.fields:
            if kind == "array":
                value = sample.image if name == "image" else sample.attributes
                if not isinstance(value, np.ndarray) or value.dtype != np.uint8 or value.shape != shape:
                    what = (
                        f"{value.dtype} {list(value.shape)}" if isinstance(value, np.ndarray) else type(value).__name__
                    )
                    raise self._wrong(index, f"its {name} is {what}, should be uint8 {list(shape)}")
                if name == "attributes" and value.max() > 1:
                    raise self._wrong(index, f"an attribute is {value.max()}, should be 0 or 1")
                block[used : used + value.size] = value.reshape(-1)
                used += value.size
            elif kind == "int":
                if sample.label is None or not 0 <= sample.label < len(split.classes):
                    raise self._wrong(
                        index, f"its label is {sample.label}, should be from 0 to {len(split.classes) - 1}"
                    )
                metadata[name] = sample.label
            else:
                value = sample.image[int(name[1:])]
                if not math.isfinite(value):
                    raise self._wrong(index, f"{name} is {value}")
                metadata[name] = value

    def _wrong(self, index: int, fault: str) -> InputError:
        return InputError(f"{self.name}, image {self.split.name(index)}: {fault}")


# ----------------------------------------------------------------------------------------------------- processes


def _in_processes(job: _Job, starts: deque[int], workers: int) -> Iterator[Chunk]:
    """Chunks in order, read ahead by at most two a worker: memory does not grow with the set.

    Not concurrent.futures: its pool waits for ever for a process that was killed while it handed over a result. Here
    every worker has a pipe of its own, which ends when it does, at whatever moment.
    """
    context = multiprocessing.get_context("fork")
    reading = np.frombuffer(mmap.mmap(-1, 8 * workers), np.int64)  # shared: the sample each worker is at
    pipes: dict[Connection, int] = {}
    processes = []
    try:
        with warnings.catch_warnings():
            # Python 3.12 warns of a fork beside threads; the children only decode, and never touch torch or OpenMP.
            warnings.simplefilter("ignore", DeprecationWarning)
            for number in range(workers):
                ours, theirs = context.Pipe()
                arguments = (job, theirs, reading[number : number + 1], os.getpid())
                process = context.Process(target=_work, args=arguments, daemon=True)
                process.start()
                theirs.close()  # now the worker's alone
                processes.append(process)
                pipes[ours] = number
        under_way = dict.fromkeys(pipes, 0)
        done: dict[int, Chunk] = {}
        wanted = starts[0]
        while wanted < job.split.count:
            for pipe in pipes:
                while under_way[pipe] < 2 and starts and starts[0] < wanted + 2 * workers * job.length:
                    if not under_way[pipe]:
                        reading[pipes[pipe]] = starts[0]
                    under_way[pipe] += 1
                    with suppress(OSError):  # a dead worker's: seen below
                        pipe.send(starts.popleft())
            while wanted not in done:
                for ready in wait(list(pipes)):
                    assert isinstance(ready, Connection)
                    start, chunk = _received(ready, job, int(reading[pipes[ready]]))
                    under_way[ready] -= 1
                    done[start] = chunk
            yield done.pop(wanted)
            wanted += job.length
    finally:
        for process in processes:  # what they may still be at is of no use any more
            process.kill()
        for process in processes:
            process.join()
        for pipe in pipes:
            pipe.close()


def _received(pipe: Connection, job: _Job, reading: int) -> tuple[int, Chunk]:
    try:
        start, answer = pipe.recv()
    except (EOFError, OSError):
        raise InputError(
            f"{job.name}, image {job.split.name(reading)}: the process that read it was killed (too little memory?); "
            "free some and run the same command again"
        ) from None
    if isinstance(answer, InputError):
        raise answer
    return start, answer


def _work(job: _Job, pipe: Connection, reading: np.ndarray, parent: int) -> None:
    for of_terminal in (signal.SIGINT, signal.SIGHUP):  # told to all of its processes: the parent's to answer
        signal.signal(of_terminal, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: no worker outlives a killed parent
    if os.getppid() != parent:
        os._exit(1)
    gc.freeze()  # what the parent had, torch maybe, is not to be gone through (and copied) again and again
    while True:
        start = pipe.recv()
        try:
            answer: Chunk | InputError = job(start, reading)
        except InputError as fault:
            answer = fault
        pipe.send((start, answer))
