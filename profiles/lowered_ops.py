"""A function as Inductor lowers it for a GPU that need not be there: forward and backward apart.

After `profiles.pretend.h100()`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._functorch import config as functorch
from torch._inductor.compile_fx import compile_fx, compile_fx_inner

from profiles.lowering import Lowered, by_kind, lowering
from profiles.op_sites import Cost


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
        except Lowered as lowered:
            costs.append(Cost(sum(by_kind(lowered.code).values()), lowered.bytes))
            return _Never()
        raise AssertionError("Inductor wrote no code")

    def backend(graph: Any, inputs: Any) -> Any:
        return compile_fx(graph, inputs, inner_compile=keep, config_patches=dict(options))

    torch._dynamo.reset()
    with lowering(), functorch.patch(force_non_lazy_backward_lowering=True, enable_autograd_cache=False):
        try:
            torch.compile(function, fullgraph=True, dynamic=False, backend=backend)(*make_arguments())
        except _CompiledError:
            return costs
    raise AssertionError("what was lowered ran")


class _CompiledError(BaseException):
    """Everything is lowered; now it would run."""


class _Never:
    """Stands for code that was not loaded."""

    _boxed_call = True  # takes its arguments in one list, as Inductor's code does

    def __call__(self, *arguments: Any) -> Any:
        raise _CompiledError
