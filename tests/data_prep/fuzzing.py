"""Mutated inputs, and a process of its own to feed them to a parser in, where memory and time are watched."""

from __future__ import annotations

import ctypes
import os
import pickle
import resource
import signal
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from ali_fast.errors import InputError

EXTREMES = [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"\1\0\0\0", b"\0\0\1\0", b"\xff" * 8]
SLOWEST_S = 5.0  # of processor time for one input: a guard against work out of all proportion


def mutations(originals: list[bytes], count: int, seed: int, words: Iterable[bytes] = ()) -> Iterator[bytes]:
    """`count` inputs, each an original with one to four faults; `words` are put in as well (for text formats)."""
    rng = np.random.default_rng(seed)
    inserts = EXTREMES + list(words)
    for number in range(count):
        data = bytearray(originals[number % len(originals)])
        for _ in range(rng.integers(1, 5)):
            # Headers lie at the ends of files: half of the faults go near one.
            size = max(1, len(data))
            at = int(rng.integers(size))
            if rng.random() < 0.5:
                at = min(size - 1, int(rng.integers(256)))
                at = size - 1 - at if rng.random() < 0.3 else at
            length = int(rng.integers(1, 64))
            insert = inserts[rng.integers(len(inserts))]
            match rng.integers(8):
                case 0:
                    data[at : at + 1] = bytes([rng.integers(256)])
                case 1:
                    data[at : at + 1] = bytes([(data[at] if data else 0) ^ (1 << rng.integers(8))])
                case 2:
                    del data[at:]
                case 3:
                    del data[at : at + length]
                case 4:
                    data[at:at] = rng.bytes(length)
                case 5:
                    data[at : at + len(insert)] = insert
                case 6:
                    data[at:at] = data[at : at + length]
                case 7:
                    data[at:at] = insert
        yield bytes(data)


def only_input_errors(parse: Callable[[bytes], object], inputs: Iterable[bytes]) -> tuple[int, int]:
    """Feed each input to `parse`; returns (accepted, refused). Anything but InputError comes out, with its input."""
    accepted = refused = 0
    for number, data in enumerate(inputs):
        began = time.process_time()
        try:
            parse(data)
            accepted += 1
        except InputError as error:
            refused += 1
            if "\n" in str(error):
                raise AssertionError(f"an error of several lines: {error}") from error
        except Exception as error:
            raise AssertionError(f"input {number} ({data[:64]!r}..., {len(data)} bytes): {error!r}") from error
        took = time.process_time() - began
        assert took < SLOWEST_S, f"input {number} took {took:.1f} s"
    return accepted, refused


def in_child(work: Callable[[], Any]) -> tuple[Any, int]:
    """Run `work` in a forked process: (what it returned, its peak memory's growth in bytes).

    Fails if it raises, is killed, or is not done in three minutes of processor time or five in all.
    """
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(300)
        resource.setrlimit(resource.RLIMIT_CPU, (180, 180))
        try:
            _fault_in_files()
            before = _memory_bytes("VmRSS")
            answer = (work(), _memory_bytes("VmHWM") - before)
        except BaseException:
            answer = (traceback.format_exc(), None)
        with os.fdopen(send, "wb") as pipe:
            pickle.dump(answer, pipe)
        os._exit(0)
    os.close(send)
    with os.fdopen(receive, "rb") as pipe:
        sent = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status == 0, f"killed by signal {-status}"
    result, growth = pickle.loads(sent)
    assert growth is not None, result
    print(f"peak memory grew by {growth / 1e6:.1f} MB")  # shown by pytest -s
    return result, growth


_MADV_POPULATE_READ = 22  # of linux/mman.h; a kernel before 5.14 knows none, and measures as if this were not here


def _fault_in_files() -> None:
    """A fork has none of its parent's pages of libraries: they come back when they are touched, hundreds of megabytes
    with torch's, and are no memory that `work` takes."""
    libc = ctypes.CDLL(None)
    with open("/proc/self/maps") as maps:
        files = [line.split()[0] for line in maps if " /" in line and line.split()[1].startswith("r")]
    for start, end in (map(lambda at: int(at, 16), span.split("-")) for span in files):
        libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _MADV_POPULATE_READ)


def _memory_bytes(key: str) -> int:
    with open("/proc/self/status") as status:
        line = next(line for line in status if line.startswith(key))
    return int(line.split()[1]) << 10
