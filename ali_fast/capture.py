"""How the step runs: eager, compiled, or compiled and captured as one CUDA graph: the same call."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
import torch._dynamo.config
from torch import Tensor
from torch._inductor import config as inductor

from csrc_triton.stored import teach_inductor

R = TypeVar("R")

# What takes many operations, or reads, Inductor computes once and writes to memory, in float32, rather than again for
# every kernel that reads it.
GPU_OPTIONS: dict[str, Any] = {"realize_reads_threshold": 16}  # 4 by default
COMPUTED_AGAIN: dict[str, Any] = {
    "realize_reads_threshold": 64,
    "realize_acc_reads_threshold": 64,
    "realize_opcount_threshold": 1000,
}


def missing_compiler() -> str | None:
    """What torch.compile lacks on this machine, in words, or None."""
    names = [name for name in (inductor.cpp.cxx if isinstance(inductor.cpp.cxx, tuple) else ()) if name]
    if any(shutil.which(name) for name in names):
        return None
    return f"no C++ compiler ({' or '.join(names)}) was found"


def compiled(
    function: Callable[..., R],
    device: torch.device,
    options: Mapping[str, Any] | None = None,
) -> Callable[..., R]:
    """`function` traced whole, `torch.autograd.grad` included; a graph break is an error.

    options: Inductor's; by default GPU_OPTIONS on a GPU, its own on a CPU.
    """
    teach_inductor()
    torch._dynamo.config.trace_autograd_ops = True
    torch._dynamo.config.recompile_limit = 256  # of one source line: a Step compiles its own, Adam once for each player
    if options is None:
        options = GPU_OPTIONS if device.type == "cuda" else {}
    return torch.compile(function, fullgraph=True, dynamic=False, options=dict(options))


class Graphed:
    """`function(*batch)`, which works on the device alone, captured in one CUDA graph and replayed.

    The first WARM_UP calls run as they are, on a side stream: they compile and pick algorithms. They are calls like
    the others, so a captured run is the run without capture. Then the next call captures; from there on a call copies
    its batch into the graph's own buffers and replays. The default generator's state is a pair of device tensors that
    each replay advances (torch registers it).
    """

    WARM_UP = 3

    def __init__(self, function: Callable[..., None]):
        self.function = function
        self.calls = 0
        self.stream = torch.cuda.Stream()
        self.graph = torch.cuda.CUDAGraph()
        self.buffers: list[Tensor] | None = None

    def __call__(self, *batch: Tensor) -> None:
        self.calls += 1
        if self.calls <= self.WARM_UP:
            self.stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self.stream):
                self.function(*batch)
            torch.cuda.current_stream().wait_stream(self.stream)
            return
        if self.buffers is None:
            self.buffers = [tensor.clone() for tensor in batch]
            # The line of the step goes before what runs beside it: on an H200 0.7 % of cifar10's.
            with torch.cuda.graph(self.graph, stream=torch.cuda.Stream(priority=-1)):
                self.function(*self.buffers)
        for buffer, tensor in zip(self.buffers, batch, strict=True):
            assert tensor.shape == buffer.shape, "a captured step takes batches of one size"
            if tensor.data_ptr() != buffer.data_ptr():
                buffer.copy_(tensor, non_blocking=True)
        self.graph.replay()

    def close(self) -> None:
        """Let the graph go: NCCL, and so the process, cannot end while a captured collective is there."""
        torch.cuda.synchronize()
        self.graph.reset()
