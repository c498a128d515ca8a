"""Timing of calls that return before the device is done, and what the device did in them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

Call = Callable[[], object]


class Spread(NamedTuple):
    """Of repeated measurements: their median and their interquartile range, in the caller's unit."""

    median: float
    iqr: float


def spread(values: Sequence[float]) -> Spread:
    """Of one or more values; a single one has no range, 0. Raises IndexError for none."""
    if len(values) < 2:
        return Spread(values[0], 0.0)
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(statistics.median(values), high - low)


def synchronize(device: torch.device) -> None:
    """Wait for what the device was given to do; a CPU has done it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def burst_ms(call: Call, times: int, device: torch.device) -> float:
    """Milliseconds a call, of `times` calls in a row and one wait at the end."""
    synchronize(device)
    start = time.perf_counter()
    for _ in range(times):
        call()
    synchronize(device)
    return (time.perf_counter() - start) / times * 1e3


def interleaved(calls: Sequence[Call], device: torch.device, *, rounds: int, burst_seconds: float) -> list[Spread]:
    """Milliseconds a call: each in turn, `rounds` times, in bursts of about `burst_seconds`, so all see one machine."""
    once = [burst_ms(call, 1, device) for call in calls]
    times = [max(1, round(burst_seconds * 1e3 / ms)) for ms in once]
    bursts: list[list[float]] = [[] for _ in calls]
    for _ in range(rounds):
        for call, n, results in zip(calls, times, bursts, strict=True):
            results.append(burst_ms(call, n, device))
    return [spread(results) for results in bursts]


def gpu_kernels(call: Call, calls: int = 3) -> float:
    """Kernels, copies and memory sets that the GPU ran in a call."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        for _ in range(calls):
            call()
        torch.cuda.synchronize()
    on_gpu = [event for event in profile.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    return len(on_gpu) / calls


def peak_tflops(dtype: torch.dtype, device: torch.device) -> float:
    """10^12 floating-point operations a second of one large matrix product: what the device can do here and now.

    On a GPU float32's is TF32's: cuDNN's convolutions, nearly all of a step, are in that by default.
    """
    n = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(n, n, dtype=dtype, device=device) for _ in range(2))
    out = torch.empty_like(a)
    tf32 = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32
    try:
        torch.mm(a, b, out=out)
        best = min(burst_ms(lambda: torch.mm(a, b, out=out), 5, device) for _ in range(5))
    finally:
        torch.backends.cuda.matmul.allow_tf32 = tf32
    return 2 * n**3 / best / 1e9
