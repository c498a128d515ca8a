"""The rows from the usual step to ours: each adds one thing to the one before. The last is what `train` uses."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ali_fast import decide, kernels
from ali_fast.model import ALI
from ali_fast.objective import Route
from ali_fast.presets import Preset
from ali_fast.step import Step
from profiles import clock
from profiles.flops import step_gflop, usual_gflop
from profiles.option_sets import OPTION_SETS
from profiles.usual import UsualStep

RESIDENT_IMAGES = 10_000
WARM_UP = 5  # calls: a graph is captured on the fourth


class Row(NamedTuple):
    """A name, the step made anew, its arithmetic (counting takes seconds: when asked), and what it computes in."""

    name: str
    make: Callable[[], Callable[[Tensor], None]]
    gflop: Callable[[], float]
    dtype: torch.dtype
    compiled: bool = False
    resident: bool = False


def rows(preset: Preset, batch_size: int, device: torch.device, amp: bool, route: Route | None = None) -> Iterator[Row]:
    """The waterfall on this device. route: of our rows, but for the official order's; by default the cheapest."""
    yield from _usual(preset, batch_size, device)
    low, _ = decide.dtype(True, device)
    work = functools.cache(lambda route: step_gflop(preset, route, batch_size))
    ours = Ours(preset, device, low if amp else torch.float32, work, route).row
    yield ours("official order: one forward, two backwards", route="two", dtype=torch.float32, compile=False)
    yield ours("cheapest route" if route is None else f"route {route!r}", dtype=torch.float32, compile=False)
    if amp:
        yield ours(f"AMP ({str(low).removeprefix('torch.')})", compile=False)
    if device.type == "cpu":
        yield ours("compiled, Inductor's own kernels")
        yield ours("compiled (as train)", spec="auto")
        return
    for options in ("default", "cooperative"):
        yield ours(f"compiled, {options} options", options=OPTION_SETS[options])
    yield ours("compiled, options as train")
    yield ours("Triton kernels", spec="triton")
    yield ours("CUDA graph", spec="triton", cuda_graph=True)
    yield ours("resident data", spec="triton", cuda_graph=True, resident=True)
    last = [
        ("--kernels auto", False, False),
        ("weight gradients beside", True, False),
        ("E beside G, each Adam on its line", True, True),  # two things at once: each player's Adam goes with its line
    ]
    if low == torch.float16:
        del last[-1]
    last.append(last.pop(-1 if decide.overlaps("auto", device)[0] else 0))
    for name, weight_gradients, encoder in last:
        as_train = "as train: " if name == last[-1][0] else ""
        yield ours(
            f"{as_train}{name}",
            spec="auto",
            cuda_graph=True,
            resident=True,
            overlap_weight_gradients=weight_gradients,
            overlap_encoder=encoder,
        )


def _usual(preset: Preset, batch_size: int, device: torch.device) -> Iterator[Row]:
    make = functools.partial(
        UsualStep, preset.architecture, device, learning_rate=preset.learning_rate, betas=(preset.beta1, preset.beta2)
    )
    work = functools.cache(lambda: usual_gflop(preset, batch_size))
    yield Row("usual PyTorch step", make, work, torch.float32)
    yield Row("channels-last", functools.partial(make, memory_format=torch.channels_last), work, torch.float32)


class Ours(NamedTuple):
    """Rows of our step, of one network on one device: in `dtype` but where a row says otherwise."""

    preset: Preset
    device: torch.device
    dtype: torch.dtype
    gflop: Callable[[Route | None], float]
    route: Route | None = None

    def row(
        self,
        name: str,
        *,
        route: Route | None = None,
        dtype: torch.dtype | None = None,
        spec: str = "inductor",
        options: Mapping[str, Any] | None = None,
        compile: bool = True,
        cuda_graph: bool = False,
        resident: bool = False,
        overlap_weight_gradients: bool = False,
        overlap_encoder: bool = False,
    ) -> Row:
        preset, device, dtype, route = self.preset, self.device, dtype or self.dtype, route or self.route

        def make() -> Step:
            model = ALI(preset.architecture, kernels.resolve(spec, decide.device_class(device)))
            model.initialize(torch.Generator().manual_seed(0))
            return Step(
                model.to(device),
                learning_rate=preset.learning_rate,
                betas=(preset.beta1, preset.beta2),
                dtype=dtype,
                route=route,
                compile=compile,
                options=options,
                cuda_graph=cuda_graph,
                samples=synthetic(preset, RESIDENT_IMAGES, device) if resident else None,
                overlap_weight_gradients=overlap_weight_gradients,
                overlap_encoder=overlap_encoder,
            )

        # fp16 takes two backwards, whatever the route
        counted: Route | None = "two" if route == "two" or dtype == torch.float16 else None
        return Row(name, make, functools.partial(self.gflop, counted), dtype, compile, resident)


def synthetic(preset: Preset, count: int, device: torch.device) -> Tensor:
    """Images of noise: uint8 [count, H, W, C]."""
    a = preset.architecture
    shape = (count, a.image_size, a.image_size, a.image_channels)
    return torch.randint(0, 256, shape, dtype=torch.uint8, device=device)


class Running(NamedTuple):
    """A row's step with the batch it is called on, warm."""

    call: Callable[[], None]
    peak_bytes: int | None


def start(row: Row, preset: Preset, batch_size: int, device: torch.device) -> Running:
    """Make the step, call it until it is warm (compiled, captured), and see what memory that took on a GPU."""
    on_cuda = device.type == "cuda"
    if on_cuda:
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
    step = row.make()
    if row.resident:
        batch = torch.randint(RESIDENT_IMAGES, (batch_size,), device=device)
    else:
        batch = synthetic(preset, batch_size, device)
    call = functools.partial(step, batch)
    for _ in range(WARM_UP):
        call()
    clock.synchronize(device)
    return Running(call, torch.cuda.max_memory_allocated(device) - before if on_cuda else None)
