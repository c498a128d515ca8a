"""A function as Inductor lowers it for a GPU that need not be there: forward and backward apart.

After `profiles.pretend.h100()`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch._functorch import config as functorch
from torch._inductor import config as inductor
from torch._inductor.compile_fx import compile_fx, compile_fx_inner
from torch._inductor.graph import GraphLowering
from torch._inductor.virtualized import V
from torch._subclasses.fake_tensor import FakeTensorMode

from profiles.op_sites import Cost
from profiles.whole_step import by_kind

GPU = torch.device("cuda", 0)


def lower(
    function: Callable[..., Any], make_arguments: Callable[[], Sequence[Tensor | None]], options: Mapping[str, Any]
) -> list[Cost]:
    """Inductor's launches and bytes for function(*arguments): the forward's, and the backward's where there is one.

    make_arguments is called where tensors on GPU can be made. Bytes are Inductor's own count: each buffer once a
    kernel that reads or writes it.
    """
    costs: list[Cost] = []

    def keep(graph: Any, inputs: Any, **settings: Any) -> Any:
        try:
            compile_fx_inner(graph, inputs, **settings)
        except _LoweredError as lowered:
            costs.append(Cost(sum(by_kind(lowered.code).values()), lowered.bytes))
            return _never
        raise AssertionError("Inductor wrote no code")

    def backend(graph: Any, inputs: Any) -> Any:
        return compile_fx(graph, inputs, inner_compile=keep, config_patches=dict(options))

    torch._dynamo.reset()
    settings = {"fx_graph_cache": False, "compile_threads": 1, "shape_padding": False}
    with (
        FakeTensorMode(allow_non_fake_inputs=True),
        inductor.patch(settings),
        functorch.patch(force_non_lazy_backward_lowering=True, enable_autograd_cache=False),
        mock.patch.object(GraphLowering, "save_output_code", staticmethod(_stop)),
    ):
        try:
            torch.compile(function, fullgraph=True, dynamic=False, backend=backend)(*make_arguments())
        except _CompiledError:
            return costs
    raise AssertionError("what was lowered ran")


class _LoweredError(BaseException):
    """Not an Exception: those torch.compile would wrap."""

    def __init__(self, code: str, bytes_moved: int):
        self.code, self.bytes = code, bytes_moved


class _CompiledError(BaseException):
    """Everything is lowered; now it would run."""


def _stop(code: str) -> None:
    raise _LoweredError(code, V.graph.count_bytes()[0])


def _never(*arguments: Any) -> Any:
    raise _CompiledError


_never._boxed_call = True  # type: ignore[attr-defined]
