import time

import pytest
import torch

from profiles import clock

CPU = torch.device("cpu")


def test_median_and_interquartile_range():
    assert clock.spread([5.0]) == (5.0, 0.0)
    assert clock.spread([1.0, 2.0, 3.0, 4.0, 100.0]) == (3.0, 2.0)


def test_calls_take_turns_in_bursts_of_one_length():
    order = []

    def call(name, seconds):
        order.append(name)
        time.sleep(seconds)

    calls = [lambda: call("slow", 0.02), lambda: call("fast", 0.002)]
    slow, fast = clock.interleaved(calls, CPU, rounds=3, burst_seconds=0.02)
    assert 20 <= slow.median < 60
    assert 2 <= fast.median < 20
    assert order[:2] == ["slow", "fast"]  # once each, to see how long a call takes
    bursts = "".join(name[0] for name in order[2:])
    assert bursts.count("sf") == bursts.count("fs") + 1 == 3
    assert bursts.count("f") > bursts.count("s") == 3


def test_peak_is_a_rate_that_this_machine_can_have():
    assert 1e-3 < clock.peak_tflops(torch.float32, CPU) < 100


def test_a_burst_begins_and_ends_with_a_device_that_has_nothing_to_do(monkeypatch):
    order = []
    monkeypatch.setattr(clock, "synchronize", lambda device: order.append("wait"))
    clock.burst_ms(lambda: order.append("call"), 2, CPU)
    assert order == ["wait", "call", "call", "wait"]


def test_the_peak_is_of_the_fastest_burst(monkeypatch):
    bursts = iter([3.0, 1.0, 2.0, 5.0, 4.0])
    monkeypatch.setattr(clock, "burst_ms", lambda *_: next(bursts))
    assert clock.peak_tflops(torch.float32, CPU) == pytest.approx(2 * 1024**3 / 1e-3 / 1e12)
