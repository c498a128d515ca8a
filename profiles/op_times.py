"""Microseconds of an op's forward and backward inside CUDA graphs, and of a plain copy of as many bytes."""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from profiles import clock

COPIES = 20
"""Calls in a graph: launching it does not count."""
WARM_UP = 3
"""Calls before it is captured: the first may compile."""


class Time(NamedTuple):
    """Of one call: median microseconds and interquartile range, and the kernels that the GPU ran."""

    us: float
    spread_us: float
    kernels: float


class Passes(NamedTuple):
    """A forward and, where the op has one, a backward, each a warm call that may be captured."""

    forward: Callable[[], object]
    backward: Callable[[], object] | None


def passes(call: Callable[..., Sequence[Tensor]], arguments: Sequence[Tensor]) -> Passes:
    """Of call(*arguments); its backward for gradients of 1. To be called, and captured, on one stream."""
    forward = functools.partial(call, *arguments)
    leaves = [t for t in arguments if t.requires_grad]
    y = forward()[0]
    dy = torch.ones_like(y)
    backward = functools.partial(torch.autograd.grad, y, leaves, dy, retain_graph=True) if y.requires_grad else None
    made = Passes(forward, backward)
    for one in filter(None, made):
        for _ in range(WARM_UP):
            one()
    return made


def capture(call: Callable[[], object], stream: torch.cuda.Stream) -> torch.cuda.CUDAGraph:
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        for _ in range(COPIES):
            call()
    return graph


def interleaved(calls: Sequence[Callable[[], object]], stream: torch.cuda.Stream, rounds: int = 5) -> list[Time]:
    """All warm calls captured, and their graphs replayed in turn; tensors stay in L2 where they fit, as in a step."""
    graphs = [capture(call, stream) for call in calls]
    bursts: list[list[float]] = [[] for _ in graphs]
    for graph in graphs:
        graph.replay()
    for _ in range(rounds):
        for graph, results in zip(graphs, bursts, strict=True):
            results.append(_replay_us(graph))
    with torch.cuda.stream(stream):  # once all is timed: a profiler stays attached to the process
        launched = [clock.gpu_kernels(call, calls=1) for call in calls]
    return [Time(*clock.spread(results), kernels) for results, kernels in zip(bursts, launched, strict=True)]


def _replay_us(graph: torch.cuda.CUDAGraph, replays: int = 5) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(replays):
        graph.replay()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) * 1e3 / (replays * COPIES)


@functools.cache
def copy_us(moved: int) -> float:
    """Of one elementwise kernel that reads half of `moved` bytes and writes the other half: this card's roofline."""
    stream = torch.cuda.Stream()
    source = torch.zeros(max(1, moved // 8), device="cuda")
    target = torch.empty_like(source)
    graph = capture(lambda: torch.neg(source, out=target), stream)
    graph.replay()
    return statistics.median(_replay_us(graph) for _ in range(5))
