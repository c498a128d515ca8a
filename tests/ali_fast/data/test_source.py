import itertools
import time

import numpy as np
import pytest
import torch

from ali_fast.data import source as source_module
from ali_fast.data.device import Wait
from ali_fast.data.loader import BetonLoader
from ali_fast.data.source import Source

CPU = torch.device("cpu")


def taken(source: Source, step: int, count: int) -> list[tuple[torch.Tensor, ...]]:
    """What the step sees: images, and y of a conditional run."""
    seen = []
    for batch in itertools.islice(source.batches(step), count):
        if source.samples is not None:
            (rows,) = batch
            batch = tuple(held[rows] for held in (source.samples, source.samples_y) if held is not None)
        seen.append(batch)
    return seen


def equal(ours, theirs):
    return all(
        torch.equal(a, b) for one, other in zip(ours, theirs, strict=True) for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("step", [0, 4, 23])
def test_stream_and_resident_set_give_the_same_batches_epoch_after_epoch(make, step, conditional):
    loader = BetonLoader(make().path, batch_size=10, seed=3)
    streamed, resident = (Source(loader, CPU, kind, conditional) for kind in (False, True))
    ours, theirs = taken(streamed, step, 25), taken(resident, step, 25)
    assert [len(batch) for batch in ours] == [1 + conditional] * 25
    assert equal(ours, theirs)
    assert equal(taken(streamed, step + 7, 9), ours[7:16])


@pytest.mark.parametrize("form", [{}, {"classes": 0, "attributes": 5}])
@pytest.mark.parametrize("resident", [False, True])
def test_y_is_that_of_the_images_and_moves_none_of_them(make, form, resident):
    made = make(**form)
    loader = BetonLoader(made.path, batch_size=10, seed=3)
    plain, conditional = (taken(Source(loader, CPU, resident, told), 4, 12) for told in (False, True))
    order = [row for epoch in (0, 1) for row in loader.order.epoch(epoch).reshape(-1, 10)][4:16]
    y = made.labels if made.attributes is None else made.attributes
    for (images,), (same, told), rows in zip(plain, conditional, order, strict=True):
        assert torch.equal(images, same)
        assert np.array_equal(told.numpy(), y[rows])
        assert np.array_equal(images.numpy(), made.images[rows])


def test_waiting_is_the_time_that_batches_take_to_come():
    def slow():
        for i in range(3):
            time.sleep(0.05)
            yield i

    wait = Wait(CPU)
    for _ in wait.timed(slow()):
        time.sleep(0.1)  # what is done with a batch is no waiting
    assert 0.15 <= wait.seconds < 0.3


def test_staging_a_batch_is_waiting_for_it(make, monkeypatch):
    """Not only the reader's time: the copies too, while the device has nothing."""
    to_device = source_module.to_device

    def slow(batches, device):
        for batch in to_device(batches, device):
            time.sleep(0.05)
            yield batch

    monkeypatch.setattr(source_module, "to_device", slow)
    stream = Source(BetonLoader(make().path, batch_size=10), CPU, resident=False)
    count = len(list(stream.epoch(0)))
    assert stream.wait.seconds >= 0.05 * count > 0


def test_a_device_at_work_waits_for_nothing(monkeypatch):
    class Stream:
        idle = False

        def query(self):
            return self.idle

    def slow():
        for i in range(2):
            time.sleep(0.05)
            yield i

    stream, wait = Stream(), Wait(torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
    assert list(wait.timed(slow())) == [0, 1]
    assert wait.seconds == 0.0
    stream.idle = True
    assert list(wait.timed(slow())) == [0, 1]
    assert wait.seconds >= 0.1
