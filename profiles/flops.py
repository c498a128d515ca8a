"""Arithmetic of a step in its eager form, by torch's FlopCounterMode."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ali_fast import kernels
from ali_fast.arch import Architecture
from ali_fast.model import ALI
from ali_fast.objective import Route
from ali_fast.presets import Preset
from ali_fast.step import Step
from profiles.usual import UsualStep

CPU = torch.device("cpu")
COUNTED = 2  # images run: products are linear in the batch


def gflop(step: Callable[[Tensor], None], architecture: Architecture, batch_size: int) -> float:
    """10^9 floating-point operations (2 a multiply-add) of an eager CPU step on `batch_size` images; runs it."""
    a = architecture
    images = torch.zeros(COUNTED, a.image_size, a.image_size, a.image_channels, dtype=torch.uint8)
    with FlopCounterMode(display=False) as counter:
        step(images)
    return counter.get_total_flops() * batch_size / COUNTED / 1e9


def step_gflop(preset: Preset, route: Route | None = None, batch_size: int | None = None) -> float:
    """Of our step, by default on its cheapest route."""
    return gflop(our_step(preset, route), preset.architecture, batch_size or preset.batch_size)


def our_step(preset: Preset, route: Route | None) -> Step:
    """To be counted: eager, on the CPU, of kernels that are torch's own operations."""
    model = ALI(preset.architecture, kernels.resolve("inductor", "cpu"))
    return Step(model, learning_rate=preset.learning_rate, route=route, compile=False)


def usual_gflop(preset: Preset, batch_size: int) -> float:
    """Of the usual step."""
    step = UsualStep(preset.architecture, CPU, learning_rate=preset.learning_rate)
    return gflop(step, preset.architecture, batch_size)
