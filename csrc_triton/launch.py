"""What the launchers share: checks, views, tiles, and the one way to a kernel.

Kernels see a channels-last map [N, C, H, W] as rows [M, C], M = N*H*W, row stride C, column stride 1.
Offsets are 32-bit.

Inductor copies a kernel's source, and what that refers to by bare name: a jitted function is called by its own name,
never as a module's attribute. Python floats it passes as fp64, a launch as fp32: kernels cast them first.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor
from torch.library import wrap_triton as _traceable

BACKENDS = ("eager", "inductor", "triton")
KERNEL_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
PROGRAMS = 264  # two for each multiprocessor of an H100

# ---------------------------------------------------------------- checks


def check_backend(op: str, backend: str) -> None:
    if backend not in BACKENDS:
        raise ValueError(f"{op}: backend is {backend!r}: one of {', '.join(BACKENDS)} is needed")


def check_dtype(op: str, name: str, x: Tensor, backend: str) -> None:
    """The kernels take fp32, fp16 and bf16; plain PyTorch takes float64 as well."""
    accepted = KERNEL_DTYPES if backend == "triton" else (*KERNEL_DTYPES, torch.float64)
    if x.dtype not in accepted:
        names = ", ".join(str(d).removeprefix("torch.") for d in accepted)
        raise ValueError(f"{op}: {name} is {x.dtype}: backend {backend!r} takes {names}")


def check_shape(op: str, name: str, x: Tensor, shape: Sequence[int | None], symbols: str) -> None:
    """`shape` with None where any size does; `symbols` is how the message writes it, as "[N, C, H, W]"."""
    if x.dim() != len(shape) or any(s is not None and s != n for s, n in zip(shape, x.shape, strict=True)):
        wanted = "" if all(s is None for s in shape) else f" = {['any' if s is None else s for s in shape]}"
        raise ValueError(f"{op}: {name} has shape {list(x.shape)}: {symbols}{wanted} is needed")
    if not 0 < x.numel() < 2**31:
        raise ValueError(f"{op}: {name} has shape {list(x.shape)}: 1 to 2**31 - 1 elements are needed")


def check_device(op: str, x: Tensor, **others: Tensor | None) -> None:
    """Every other tensor lies where x does."""
    for name, t in others.items():
        if t is not None and t.device != x.device:
            raise ValueError(f"{op}: {name} is on {t.device}: the data is on {x.device}")


def check_seeds(op: str, seeds: Tensor | None, slot: int) -> None:
    if seeds is None:
        raise ValueError(f"{op}: seeds is None: random numbers need an int64 [K] tensor of seeds")
    if seeds.dtype != torch.int64 or seeds.dim() != 1 or not seeds.is_contiguous():
        raise ValueError(
            f"{op}: seeds is {seeds.dtype} {list(seeds.shape)}, strides {list(seeds.stride())}: "
            f"int64 [K] is needed, contiguous"
        )
    if not 0 <= slot < seeds.shape[0]:
        raise ValueError(f"{op}: slot is {slot}: seeds has {seeds.shape[0]}")


def check_layout(op: str, **maps: Tensor) -> None:
    """The launchers' own: a map is in channels-last memory (the ops see to it; who calls a launcher must)."""
    for name, x in maps.items():
        if not x.is_contiguous(memory_format=torch.channels_last):
            raise ValueError(f"{op}: {name} has strides {list(x.stride())}: channels-last memory is needed")


def no_second_derivative(op: str) -> Callable[..., Any]:
    """The autograd formula of a backward op."""

    def raises(ctx: Any, *gradients: Tensor) -> None:
        raise RuntimeError(f"{op}: the kernel has no second derivative: use backend='eager' for it")

    return raises


# ---------------------------------------------------------------- layout


def arithmetic_dtype(dtype: torch.dtype) -> torch.dtype:
    """What values of `dtype` are computed in: float32, and float64 in itself."""
    return torch.promote_types(dtype, torch.float32)


def widened(x: Tensor) -> Tensor:
    """x in the dtype that it is computed in."""
    return x.to(arithmetic_dtype(x.dtype))


def channels_last(x: Tensor) -> Tensor:
    """x in channels-last memory: itself, or a copy (a gradient may come expanded or NCHW)."""
    return x.contiguous(memory_format=torch.channels_last)


def fresh_map(y: Tensor, x: Tensor) -> Tensor:
    """A reference's result as an op's: in channels-last memory, and not its input x itself."""
    return channels_last(y.clone() if y is x else y)


def empty_map(x: Tensor, channels: int | None = None) -> Tensor:
    """An uninitialised channels-last map like x, with another number of channels if given.

    Its strides are given, not left to a memory format: of a 1x1 map Inductor (torch 2.13) would choose others, and then
    fail where it copies the kernel's result back to itself. A view, as two `empty_strided` of one size are one to a
    compiler, which then copies them, uninitialised, for the kernels that write them.
    """
    n, c, h, w = x.shape
    return torch.empty((n, h, w, channels or c), dtype=x.dtype, device=x.device).permute(0, 3, 1, 2)


def rows_and_channels(x: Tensor) -> tuple[int, int]:
    n, c, h, w = x.shape
    return n * h * w, c


def channel_sums(x: Tensor) -> Tensor:
    """[C], over the rest: a reference's.

    Image by image: one stays in a core's cache. Inductor's C++ for a sum over all rows at once goes through memory
    again for every eight channels.
    """
    return x.sum((2, 3)).sum(0)


# ---------------------------------------------------------------- tiles


@dataclass(frozen=True)
class Tile:
    """What one program holds at a time: rows x channels elements in `warps` warps."""

    rows: int
    channels: int
    warps: int


# By the narrowest block that covers the channels (8 at least: one Philox call); 16 elements a thread.
# Not tuned on a GPU.
TILES = {8: Tile(256, 8, 4), 16: Tile(128, 16, 4), 32: Tile(64, 32, 4), 64: Tile(32, 64, 4)}


def tile_for(channels: int) -> Tile:
    return TILES[min(64, max(8, triton.next_power_of_2(channels)))]


@dataclass(frozen=True)
class RowSplit:
    """M rows in `parts` ranges of `rows` rows each (the last may be short, none is empty)."""

    parts: int
    rows: int


def split_rows(rows: int, tile_rows: int, column_blocks: int, max_parts: int) -> RowSplit:
    """Ranges of whole tiles for a reduction over rows: enough programs for a large GPU, few partial sums to merge."""
    wanted = min(max_parts, -(-rows // tile_rows), max(1, PROGRAMS // column_blocks))
    per_part = -(-rows // (wanted * tile_rows)) * tile_rows
    return RowSplit(parts=-(-rows // per_part), rows=per_part)


# ---------------------------------------------------------------- the way to a kernel


@dataclass(frozen=True)
class Launch:
    """One kernel launch as a launcher asked for it: `arguments` by name, compile-time constants included."""

    kernel: Any
    grid: tuple[int, ...]
    arguments: dict[str, Any]
    num_warps: int


def runs_kernels(x: Tensor) -> bool:
    """Whether an op launches its kernels for x, or runs the reference."""
    return x.device.type == "cuda"


_record: list[Launch] | None = None


@contextmanager
def recorded_launches() -> Iterator[list[Launch]]:
    """Within it launchers run nothing and list their launches instead: for compiling ahead of time and for counting."""
    global _record
    outer, _record = _record, []
    try:
        yield _record
    finally:
        _record = outer


def wrap_triton(kernel: Any) -> Any:
    """`torch.library.wrap_triton`, which the interpreter's functions pass unwrapped and a recording intercepts.

    It must have this name: torch finds the kernels of a `triton_op`, for its cache keys, by looking for calls of it.
    """
    if _record is not None:
        return _Recorder(kernel, _record)
    return _traceable(kernel) if isinstance(kernel, triton.runtime.JITFunction) else kernel


class _Recorder:
    def __init__(self, kernel: Any, record: list[Launch]) -> None:
        self.kernel, self.record = kernel, record

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        def launch(*args: Any, num_warps: int = 4, **kwargs: Any) -> None:
            arguments = dict(zip(self.kernel.arg_names, args, strict=False)) | kwargs
            self.record.append(Launch(self.kernel, grid, arguments, num_warps))

        return launch
