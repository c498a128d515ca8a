"""Tiles, and the one way to a kernel.

Kernels see a channels-last map [N, C, H, W] as rows [M, C], M = N*H*W, row stride C, column stride 1.
Offsets are 32-bit.

Inductor copies a kernel's source, and what that refers to by bare name: a jitted function is called by its own name,
never as a module's attribute. Python floats it passes as fp64, a launch as fp32: kernels cast them first.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import triton
from torch import Tensor
from torch.library import wrap_triton as _traceable

PROGRAMS = 264  # two for each multiprocessor of an H100


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
