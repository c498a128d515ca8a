"""What the ops refuse, in words: what was given and what is needed."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

BACKENDS = ("eager", "inductor", "triton")
KERNEL_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def backend(op: str, backend: str) -> None:
    if backend not in BACKENDS:
        raise ValueError(f"{op}: backend is {backend!r}: one of {', '.join(BACKENDS)} is needed")


def dtype(op: str, name: str, x: Tensor, backend: str) -> None:
    """The kernels take fp32, fp16 and bf16; plain PyTorch takes float64 as well."""
    accepted = KERNEL_DTYPES if backend == "triton" else (*KERNEL_DTYPES, torch.float64)
    if x.dtype not in accepted:
        names = ", ".join(str(d).removeprefix("torch.") for d in accepted)
        raise ValueError(f"{op}: {name} is {x.dtype}: backend {backend!r} takes {names}")


def shape(op: str, name: str, x: Tensor, shape: Sequence[int | None], symbols: str) -> None:
    """`shape` with None where any size does; `symbols` is how the message writes it, as "[N, C, H, W]"."""
    if x.dim() != len(shape) or any(s is not None and s != n for s, n in zip(shape, x.shape, strict=True)):
        wanted = "" if all(s is None for s in shape) else f" = {['any' if s is None else s for s in shape]}"
        raise ValueError(f"{op}: {name} has shape {list(x.shape)}: {symbols}{wanted} is needed")
    if not 0 < x.numel() < 2**31:
        raise ValueError(f"{op}: {name} has shape {list(x.shape)}: 1 to 2**31 - 1 elements are needed")


def device(op: str, x: Tensor, **others: Tensor | None) -> None:
    """Every other tensor lies where x does."""
    for name, t in others.items():
        if t is not None and t.device != x.device:
            raise ValueError(f"{op}: {name} is on {t.device}: the data is on {x.device}")


def seeds(op: str, seeds: Tensor | None, slot: int) -> None:
    if seeds is None:
        raise ValueError(f"{op}: seeds is None: random numbers need an int64 [K] tensor of seeds")
    if seeds.dtype != torch.int64 or seeds.dim() != 1 or not seeds.is_contiguous():
        raise ValueError(
            f"{op}: seeds is {seeds.dtype} {list(seeds.shape)}, strides {list(seeds.stride())}: "
            f"int64 [K] is needed, contiguous"
        )
    if not 0 <= slot < seeds.shape[0]:
        raise ValueError(f"{op}: slot is {slot}: seeds has {seeds.shape[0]}")


def layout(op: str, **maps: Tensor) -> None:
    """The launchers' own: a map is in channels-last memory (the ops see to it; who calls a launcher must)."""
    for name, x in maps.items():
        if not x.is_contiguous(memory_format=torch.channels_last):
            raise ValueError(f"{op}: {name} has strides {list(x.stride())}: channels-last memory is needed")


def no_second_derivative(op: str) -> Callable[..., Any]:
    """The autograd formula of a backward op."""

    def raises(ctx: Any, *gradients: Tensor) -> None:
        raise RuntimeError(f"{op}: the kernel has no second derivative: use backend='eager' for it")

    return raises
