"""Writes one split as a .beton and its manifest, so that a split is either whole or not there.

FFCV's own writer waits for ever when a sample cannot be read, has another shape, or its worker is killed, and lays a
file out as its workers happen to run. This one writes the same format (ali_fast.data.beton) from one process, in the
samples' order: equal sources give equal bytes, a small set takes kilobytes, and any fault ends it with one error.
Costly reads (decoding photographs) run ahead in watched processes.
"""

from __future__ import annotations

import ctypes
import dataclasses
import errno
import math
import multiprocessing
import os
import shutil
import signal
import time
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from ali_fast.data import beton, schema
from ali_fast.data.schema import Manifest
from ali_fast.errors import InputError

CHUNK_BYTES = 1 << 20
CHUNK_SAMPLES = 64
WORTH_WORKERS_S = 2.0  # starting processes costs about 0.1 s; below this much reading they are not worth their noise

Progress = Callable[[int, int], None]  # (samples written, samples in all)


class Sample(NamedTuple):
    """One sample: an image uint8 [H, W, C] (or a point, two floats), and what is known of it."""

    image: np.ndarray
    label: int | None = None
    attributes: np.ndarray | None = None  # uint8 [A], 0 or 1


@dataclass(frozen=True)
class Split:
    """A source's split: `read(i)` gives sample i of `count`, in any order and process, or raises InputError naming it.

    image_shape is (H, W, C), or (2,) for points; every sample has a label if there are classes, attributes if there are
    attribute_names. source_sha256 names the files it came from.
    """

    count: int
    image_shape: tuple[int, ...]
    read: Callable[[int], Sample]
    classes: tuple[str, ...] = ()
    attribute_names: tuple[str, ...] = ()
    source_sha256: dict[str, str] = field(default_factory=dict)


class _Chunk(NamedTuple):
    arrays: np.ndarray  # uint8 [n, bytes of a sample's arrays]
    metadata: np.ndarray  # structured [n]; offsets are filled in when it is written


def write_split(
    split: Split,
    path: Path,
    *,
    dataset: str,
    split_name: str,
    options: dict[str, Any] | None = None,
    progress: Progress = lambda done, total: None,
    workers: int | None = None,
) -> Manifest:
    """Writes `path` and the manifest beside it, replacing both; returns the manifest.

    The caller holds the data set's lock. `workers` processes read the samples; 0 reads them here; by default as many as
    there are processors if the first samples were slow. Raises InputError naming the sample that could not be read or
    is not what the split says, or the file that could not be written; nothing is left behind then.
    """
    draft = Manifest(
        dataset=dataset,
        split=split_name,
        count=split.count,
        shape=split.image_shape,
        classes=split.classes,
        attributes=split.attribute_names,
        bytes=0,
        sha256="",
        source_sha256=split.source_sha256,
        options=options or {},
    )
    if split.count < 1:
        raise InputError(f"{dataset}, {split_name}: there is not one sample")
    fields = beton.fields_of(draft)
    offsets, end = beton.layout(split.count, fields)
    arrays = [(name, math.prod(shape)) for name, kind, shape in fields if kind == "array"]
    total_bytes = end + split.count * len(arrays) * beton.ALLOCATION.itemsize
    part = path.with_name(path.name + ".part")
    manifest_part = schema.manifest_path(path).with_suffix(".json.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(path.parent).free
        if free < total_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        part.unlink(missing_ok=True)  # a file of its own: nobody who still holds the old one can write into this
        with part.open("xb") as file:
            metadata = np.empty(split.count, beton.metadata_type(fields))
            done = 0
            with closing(_chunks(split, fields, f"{dataset}, {split_name}", workers)) as chunks:
                for chunk in chunks:
                    rows = slice(done, done + len(chunk.metadata))
                    metadata[rows] = chunk.metadata
                    _fill_offsets(metadata[rows], arrays, offsets[rows])
                    _write_blocks(file, chunk.arrays, offsets[rows].astype(np.int64))
                    done = rows.stop
                    progress(done, split.count)
            _write_tables(file, fields, metadata, arrays, end)
            os.fsync(file.fileno())
        manifest = dataclasses.replace(draft, bytes=part.stat().st_size, sha256=beton.digest(part))
        with manifest_part.open("w") as file_of_text:
            file_of_text.write(manifest.to_json())
            file_of_text.flush()
            os.fsync(file_of_text.fileno())
        # A beton without a manifest is an unfinished one, so the old manifest goes first and the new one comes last.
        schema.manifest_path(path).unlink(missing_ok=True)
        part.replace(path)
        manifest_part.replace(schema.manifest_path(path))
        return manifest
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        advice = f"it takes {total_bytes / 1e6:,.1f} MB: free some, or use" if full else "use"
        raise InputError(f"cannot write {path}: {error.strerror}; {advice} another --data-dir") from None
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
            manifest_part.unlink(missing_ok=True)


def _fill_offsets(metadata: np.ndarray, arrays: list[tuple[str, int]], offsets: np.ndarray) -> None:
    for name, size in arrays:
        metadata[name] = offsets
        offsets = offsets + np.uint64(size)


def _write_blocks(file: BinaryIO, blocks: np.ndarray, offsets: np.ndarray) -> None:
    """Writes each run of adjacent samples at once; a run ends where the next page starts."""
    if not blocks.shape[1]:
        return
    breaks = (np.flatnonzero(np.diff(offsets) != blocks.shape[1]) + 1).tolist()
    for low, high in zip([0, *breaks], [*breaks, len(blocks)], strict=True):
        file.seek(offsets[low])
        file.write(blocks[low:high].data)


def _write_tables(
    file: BinaryIO, fields: list[beton.Field], metadata: np.ndarray, arrays: list[tuple[str, int]], end: int
) -> None:
    table = np.empty((len(metadata), len(arrays)), beton.ALLOCATION)
    for column, (name, size) in zip(table.T, arrays, strict=True):
        column["sample"], column["offset"], column["size"] = np.arange(len(metadata)), metadata[name], size
    file.seek(end)
    file.write(table.tobytes())
    header = np.zeros(1, beton.HEADER)
    header["version"], header["fields"], header["samples"] = beton.FFCV_VERSION, len(fields), len(metadata)
    header["page_bytes"], header["allocations"] = beton.PAGE_BYTES, end
    file.seek(0)
    file.write(header.tobytes() + beton.descriptors(fields) + metadata.tobytes())
    file.flush()


# ------------------------------------------------------------------------------------------------------- reading


def _chunks(split: Split, fields: list[beton.Field], name: str, workers: int | None) -> Generator[_Chunk, None, None]:
    """The samples in order. Decides by the first chunk's time whether processes are worth it."""
    sample_bytes = sum(math.prod(shape) for _, kind, shape in fields if kind == "array")
    length = max(1, min(CHUNK_SAMPLES, CHUNK_BYTES // max(1, sample_bytes)))
    starts = deque(range(0, split.count, length))
    job = _Job(split, fields, name, length)
    if workers is None:
        began = time.perf_counter()
        yield job(starts.popleft())
        worth = (time.perf_counter() - began) * len(starts) > WORTH_WORKERS_S
        workers = len(os.sched_getaffinity(0)) if worth else 0
    if workers < 1:
        yield from map(job, starts)
    elif starts:
        yield from _in_processes(job, starts, workers)


@dataclass(frozen=True)
class _Job:
    """Reads and checks the chunk that starts at a sample."""

    split: Split
    fields: list[beton.Field]
    name: str
    length: int

    def __call__(self, start: int) -> _Chunk:
        count = min(self.length, self.split.count - start)
        shapes = [math.prod(shape) for _, kind, shape in self.fields if kind == "array"]
        chunk = _Chunk(np.empty((count, sum(shapes)), np.uint8), np.zeros(count, beton.metadata_type(self.fields)))
        for row in range(count):
            try:
                sample = self.split.read(start + row)
            except InputError:
                raise
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
        return InputError(f"{self.name}, image {index}: {fault}")


_job: _Job  # in a worker process, what the whole pool works at


def _start_worker(job: _Job, parent: int) -> None:
    global _job
    _job = job
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's to answer
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: no worker outlives a killed parent
    if os.getppid() != parent:
        os._exit(1)


def _work(start: int) -> _Chunk:
    return _job(start)


def _in_processes(job: _Job, starts: deque[int], workers: int) -> Iterator[_Chunk]:
    """Chunks in order, read ahead by at most two a worker: memory does not grow with the set."""
    pool = ProcessPoolExecutor(
        workers, multiprocessing.get_context("fork"), initializer=_start_worker, initargs=(job, os.getpid())
    )
    ahead: deque[tuple[int, Future[_Chunk]]] = deque()

    def submit() -> None:
        while starts and len(ahead) < 2 * workers + 1:
            start = starts.popleft()
            ahead.append((start, pool.submit(_work, start)))

    try:
        with warnings.catch_warnings():
            # Python 3.12 warns of a fork beside threads; the children only decode, and never touch torch or OpenMP.
            warnings.simplefilter("ignore", DeprecationWarning)
            submit()
        while ahead:
            start, future = ahead.popleft()
            yield future.result()
            submit()
    except BaseException as fault:
        for process in list(pool._processes.values()):  # the workers' chunks are of no use any more
            process.kill()
        if not isinstance(fault, BrokenProcessPool):
            raise
        last = min(job.split.count, start + job.length * (len(ahead) + 1)) - 1
        raise InputError(
            f"{job.name}: a process that read images {start} to {last} was killed (too little memory?); "
            "free some and run the same command again"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
