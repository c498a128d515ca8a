import itertools
import time

import pytest
import torch

from ali_fast.data.device import Wait
from ali_fast.data.loader import BetonLoader
from ali_fast.data.source import Source

CPU = torch.device("cpu")


def taken(source: Source, step: int, count: int) -> list[torch.Tensor]:
    batches = itertools.islice(source.batches(step), count)
    return [batch if source.samples is None else source.samples[batch] for batch in batches]


@pytest.mark.parametrize("step", [0, 4, 23])
def test_stream_and_resident_set_give_the_same_batches_epoch_after_epoch(make, step):
    loader = BetonLoader(make().path, batch_size=10, seed=3)
    streamed, resident = (Source(loader, CPU, kind) for kind in (False, True))
    ours, theirs = taken(streamed, step, 25), taken(resident, step, 25)
    assert len(ours) == 25
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(taken(streamed, step + 7, 9), ours[7:16], strict=True))


def test_waiting_is_the_time_that_batches_take_to_come():
    def slow():
        for i in range(3):
            time.sleep(0.05)
            yield i

    wait = Wait(CPU)
    for _ in wait.timed(slow()):
        time.sleep(0.1)  # what is done with a batch is no waiting
    assert 0.15 <= wait.seconds < 0.3


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
