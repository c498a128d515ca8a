"""The stream: what comes back is what was written, in our order; faults arrive, threads leave, and nothing hangs."""

import itertools
import os
import queue
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch

from ali_fast.data import ffcv_stream
from ali_fast.data.loader import BetonLoader
from ali_fast.data.schema import DamagedError, NotPreparedError
from ali_fast.errors import InputError

# What takes milliseconds is given minutes: numba compiles in some of these, on a machine that may be busy.


@pytest.fixture
def reader_threads():
    """Counts FFCV's threads that are alive."""
    return lambda: sum(isinstance(thread, ffcv_stream.Stream) for thread in threading.enumerate())


@pytest.mark.parametrize("form", [{}, {"classes": 0}, {"attributes": 5}, {"shape": (2,)}, {"shape": (8, 8, 1)}])
def test_streams_what_was_written_in_our_order(make, form):
    made = make(**form)
    loader = BetonLoader(made.path, batch_size=10, seed=4)
    assert len(loader) == 10
    for epoch in range(2):
        order = loader.order.epoch(epoch).reshape(10, 10)
        for number, batch in enumerate(loader.epoch(epoch)):
            rows = order[number]
            assert batch.images.is_contiguous() or "shape" in form
            assert np.array_equal(batch.images.numpy(), made.images[rows])
            for found, written in ((batch.labels, made.labels), (batch.attributes, made.attributes)):
                assert (found is None) == (written is None)
                if written is not None:
                    assert np.array_equal(found.numpy(), written[rows])
        assert number == 9


def test_types(make):
    batch = next(BetonLoader(make(attributes=3).path, batch_size=4).epoch(0))
    assert (batch.images.dtype, batch.images.shape) == (torch.uint8, (4, 6, 5, 3))
    assert (batch.labels.dtype, batch.labels.shape) == (torch.int64, (4,))
    assert (batch.attributes.dtype, batch.attributes.shape) == (torch.uint8, (4, 3))


def test_batch_of_one_has_labels_of_one(make):
    assert next(BetonLoader(make().path, batch_size=1).epoch(0)).labels.shape == (1,)


@pytest.mark.parametrize("start", [0, 1, 9, 10])
def test_resume_inside_an_epoch(make, start):
    loader = BetonLoader(make().path, batch_size=10, seed=1)
    whole = [batch.images.clone() for batch in loader.epoch(3)]
    rest = [batch.images.clone() for batch in loader.epoch(3, start)]
    assert len(rest) == 10 - start
    assert all(map(torch.equal, whole[start:], rest))


def test_ranks_read_their_share(make):
    made = make()
    loaders = [BetonLoader(made.path, batch_size=5, rank=rank, world=2) for rank in range(2)]
    one = BetonLoader(made.path, batch_size=10)
    pairs = zip(*(loader.epoch(0) for loader in loaders), strict=True)
    for (a, b), both in zip(pairs, one.epoch(0), strict=True):
        assert torch.equal(torch.cat([a.images, b.images]), both.images)


def test_read_all_and_parts_in_file_order(make):
    made = make(attributes=2)
    loader = BetonLoader(made.path, batch_size=1)
    batch = loader.read_all()
    assert np.array_equal(batch.images.numpy(), made.images)
    assert np.array_equal(batch.labels.numpy(), made.labels)
    assert np.array_equal(batch.attributes.numpy(), made.attributes)
    part = loader.read(5, 9)
    assert torch.equal(part.images, batch.images[5:9])
    assert torch.equal(part.labels, batch.labels[5:9])


def test_leaving_early_leaves_no_thread(make, within, reader_threads):
    loader = BetonLoader(make().path, batch_size=4)
    loader.compile()
    with within(120):
        for epoch in range(60):
            for _ in itertools.islice(loader.epoch(epoch), epoch % 3 + 1):
                pass
            assert reader_threads() == 0


@pytest.mark.parametrize("taken", [1, 22, 24, 25])
def test_leaving_while_the_queue_is_full_at_the_end(make, within, reader_threads, taken):
    """FFCV's thread waits for ever to put its end mark into a full queue that nobody reads any more."""
    loader = BetonLoader(make().path, batch_size=4)  # 25 batches
    batches = loader.epoch(0)
    for _ in range(taken):
        next(batches)
    time.sleep(0.2)  # the thread fills the queue, up to its end mark
    with within(120):
        batches.close()
    assert reader_threads() == 0


def test_a_fault_in_the_thread_reaches_the_consumer(make, within, monkeypatch, reader_threads):
    loader = BetonLoader(make().path, batch_size=4)
    loader.compile()
    run_pipeline = ffcv_stream.Stream.run_pipeline

    def boom(self, number, *rest):
        if number == 7:
            raise ZeroDivisionError("boom")
        return run_pipeline(self, number, *rest)

    monkeypatch.setattr(ffcv_stream.Stream, "run_pipeline", boom)
    seen = 0
    with within(120), pytest.raises(ffcv_stream.ReaderError, match="reader thread failed") as error:
        for _ in loader.epoch(0):
            seen += 1
    assert seen == 7
    assert isinstance(error.value.__cause__, ZeroDivisionError)
    assert reader_threads() == 0


def test_a_fault_in_the_consumer_stops_the_thread(make, within, reader_threads):
    loader = BetonLoader(make().path, batch_size=4)
    with within(120), pytest.raises(KeyError):
        for _ in loader.epoch(0):
            raise KeyError
    assert reader_threads() == 0


def test_a_thread_that_vanished_is_no_hang(make, within, monkeypatch):
    monkeypatch.setattr(ffcv_stream.Stream, "run", lambda self: None)
    with within(120):
        assert list(BetonLoader(make().path, batch_size=4).epoch(0)) == []


def test_a_last_batch_that_comes_as_the_thread_ends_is_not_lost():
    class Late(queue.Queue):
        """The first to ask finds nothing; by the time it looks round, all is there."""

        def get(self, *args, **kw):
            if not self.filled:
                self.filled = True
                self.put((0, "the last batch"))
                self.put(None)
                raise queue.Empty
            return super().get(*args, **kw)

    stream = object.__new__(ffcv_stream.Stream)
    threading.Thread.__init__(stream)  # never started: not alive
    stream.terminate_event, stream.output_queue = threading.Event(), Late()
    stream.output_queue.filled = False
    assert next(stream) == "the last batch"
    with pytest.raises(StopIteration):
        next(stream)


@pytest.mark.parametrize("size", [0, 5000, -1])
def test_a_file_cut_while_it_is_streamed(make, within, size, reader_threads):
    made = make(count=2000)
    loader = BetonLoader(made.path, batch_size=10)
    with within(120), pytest.raises(DamagedError, match=r"train\.beton: was changed while it was in use .*--force"):
        for number, _ in enumerate(loader.epoch(0)):
            if number == 3:
                os.truncate(made.path, size if size >= 0 else made.path.stat().st_size - 1)
            assert number < 4
    assert reader_threads() == 0


def test_a_file_cut_behind_the_check_is_still_no_signal(make, within, monkeypatch):
    """The check before each batch can be late; the reads then find the end, which a memory map would not survive."""
    made = make(count=2000)
    loader = BetonLoader(made.path, batch_size=10)
    monkeypatch.setattr(loader.beton, "check_unchanged", lambda: None)
    with within(120), pytest.raises(DamagedError, match="could not be read to its end"):
        for number, _ in enumerate(loader.epoch(0)):
            if number == 3:
                os.truncate(made.path, 50_000)


def test_a_file_written_over_is_noticed(make):
    made = make()
    loader = BetonLoader(made.path, batch_size=10)
    list(loader.epoch(0))
    with made.path.open("r+b") as file:
        file.write(b"\2")
    with pytest.raises(DamagedError, match="was changed"):
        next(loader.epoch(1))
    with pytest.raises(DamagedError, match="was changed"):
        loader.read_all()


def test_preparing_anew_does_not_disturb_who_reads_the_old_file(make):
    old = make(seed=1)
    loader = BetonLoader(old.path, batch_size=10)
    order = loader.order.epoch(0).reshape(-1, 10)
    for number, batch in enumerate(loader.epoch(0)):
        if number == 2:
            new = make(seed=2)
        assert np.array_equal(batch.images.numpy(), old.images[order[number]])
    assert np.array_equal(BetonLoader(new.path, batch_size=1).read_all().images.numpy(), new.images)


def test_errors_name_the_way_out(make, tmp_path):
    with pytest.raises(NotPreparedError, match=r"ali-fast prepare digits"):
        BetonLoader(tmp_path / "digits" / "train.beton", batch_size=1)
    with pytest.raises(InputError, match=r"--batch-size 104: larger than the set, which has 103 samples"):
        BetonLoader(make().path, batch_size=104)


def test_torch_keeps_its_threads(make):
    """Import, Loader and every epoch of FFCV set torch's thread count; in a process of its own, import included."""
    code = f"""
import threading, torch
torch.set_num_threads(3)
from pathlib import Path
from ali_fast.data.loader import BetonLoader
loader = BetonLoader(Path({str(make().path)!r}), batch_size=10)
seen = [torch.get_num_threads()]
for _ in loader.epoch(0):
    seen.append(torch.get_num_threads())
fresh = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
fresh.start()
fresh.join()
assert set(seen) == {{3}}, seen
"""
    environment = {name: value for name, value in os.environ.items() if not name.endswith("NUM_THREADS")}
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300, env=environment)


def test_opening_and_reading_need_no_ffcv(make):
    code = f"""
import sys
from pathlib import Path
from ali_fast.data.loader import BetonLoader
BetonLoader(Path({str(make().path)!r}), batch_size=10).read_all()
assert not {{"ffcv", "numba"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


def test_many_loaders_at_once(make, within):
    made = make()
    loaders = [BetonLoader(made.path, batch_size=10, seed=seed) for seed in range(3)]
    with within(60):
        for batches in zip(*(loader.epoch(0) for loader in loaders), strict=True):
            for loader, batch in zip(loaders, batches, strict=True):
                assert batch.images.shape == (10, 6, 5, 3)
                assert loader.order.seed in range(3)
