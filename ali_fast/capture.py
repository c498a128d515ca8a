"""How the step runs: eager or compiled (CUDA graphs take their place here)."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import TypeVar

import torch
import torch._dynamo.config
from torch._inductor import config as inductor

R = TypeVar("R")

CUDA_OPTIONS = {
    # Batch norm's masked gradient has more than four reads and three users: by default Inductor writes it to
    # memory in float32 before it reduces it.
    "realize_reads_threshold": 16,
}


def missing_compiler() -> str | None:
    """What torch.compile lacks on this machine, in words, or None."""
    names = [name for name in (inductor.cpp.cxx if isinstance(inductor.cpp.cxx, tuple) else ()) if name]
    if any(shutil.which(name) for name in (*names, "g++", "clang++")):
        return None
    return "no C++ compiler (g++ or clang++) was found"


def compiled(function: Callable[..., R], device: torch.device) -> Callable[..., R]:
    """`function` traced whole, `torch.autograd.grad` included; a graph break is an error."""
    torch._dynamo.config.trace_autograd_ops = True
    options = CUDA_OPTIONS if device.type == "cuda" else {}
    return torch.compile(function, fullgraph=True, dynamic=False, options=dict(options))
