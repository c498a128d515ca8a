"""Inductor stopped at the code that it has written for a GPU that need not be there, and what this code launches.

After `profiles.pretend.h100()`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import torch
from torch._inductor import config as inductor
from torch._inductor.graph import GraphLowering
from torch._inductor.virtualized import V
from torch._subclasses.fake_tensor import FakeTensorMode

GPU = torch.device("cuda", 0)
SETTINGS = {"fx_graph_cache": False, "compile_threads": 1, "shape_padding": False}  # padding is decided by timing


class Lowered(BaseException):
    """Inductor's code, and the bytes that its kernels move by Inductor's own count: each buffer once a kernel.

    Not an Exception: those torch.compile would wrap.
    """

    def __init__(self, code: str, bytes_moved: int):
        self.code, self.bytes = code, bytes_moved


@contextmanager
def lowering() -> Iterator[None]:
    """Inside, tensors on GPU are fake, and a compilation ends by raising Lowered where its code would be loaded."""
    with (
        FakeTensorMode(allow_non_fake_inputs=True),
        inductor.patch(SETTINGS),
        mock.patch.object(GraphLowering, "save_output_code", staticmethod(_stop)),
    ):
        yield


def _stop(code: str) -> None:
    raise Lowered(code, V.graph.count_bytes()[0])  # outside of this call V.graph is another's or nobody's


# A launch in `call`: name.run(..) of a Triton kernel, or a call of ATen.
LAUNCH = re.compile(r"(\w+)\.run\(|(?:extern_kernels|torch\.ops\.\w+|aten|prims)\.(\w+)[\w.]*\(|\.(zero_|fill_)\(")
TRITON_KINDS = {"poi": "pointwise", "red": "reduction", "per": "reduction", "unk": "cooperative", "for": "foreach"}


def by_kind(code: str) -> Counter[str]:
    """Launches of Inductor's output: convolution, GEMM, Inductor's own Triton kernels, ours, ATen's, memory sets."""
    assert "cpp_fused" not in code, "a part of the step was lowered for the CPU"
    kinds: Counter[str] = Counter()
    for line in code[code.index("def call(") :].splitlines():
        launch = LAUNCH.search(line.split("#")[0])
        if not launch or line.lstrip().startswith("assert"):
            continue
        triton, aten, memory = launch.groups()
        if memory:
            kinds["memory set"] += 1
        elif aten:
            kinds[_aten_kind(aten)] += 1
        elif triton.startswith("triton_"):
            kinds[TRITON_KINDS.get(triton.split("_")[1], "other Triton")] += 1
        else:
            kinds["custom Triton"] += 1
    return kinds


def _aten_kind(name: str) -> str:
    if "convolution" in name:
        return "convolution"
    return "GEMM" if name in ("mm", "addmm", "bmm", "baddbmm") else "ATen"
