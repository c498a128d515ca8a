"""A tensor that a compiled program computes once and then reads from memory.

Inductor computes an elementwise result anew in every kernel that reads it, from whatever is in memory already. For a
dropout mask that is the float32 random number, four bytes in place of one; for a gradient that each of many channels
reads, all that led to it.
"""

import functools

import torch
from torch import Tensor


@torch.library.custom_op("csrc_triton::stored", mutates_args=())
def _stored(x: Tensor) -> Tensor:
    return x.clone()


@_stored.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


def stored(x: Tensor) -> Tensor:
    """x, without a gradient. Outside of a compiled program it is in memory as it is."""
    return _stored(x) if torch.compiler.is_compiling() else x


@functools.cache
def teach_inductor() -> None:
    """Before compiling: else it calls the operation above, which copies."""
    from torch._inductor.lowering import clone, register_lowering  # a second, which only who compiles needs

    @register_lowering(torch.ops.csrc_triton.stored.default, type_promotion_kind=None)
    def _(x):
        x.realize()
        return clone(x)
