"""Arithmetic of a step, by torch's FlopCounterMode: of its eager form, and of the graph that the compiler gets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from unittest import mock

import torch
import torch._dynamo.config
from torch import Tensor
from torch._dynamo.backends.common import aot_autograd
from torch._subclasses.fake_tensor import FakeTensor
from torch.fx import GraphModule, Interpreter
from torch.utils.flop_counter import FlopCounterMode

from ali_fast import kernels, layers
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


def step_gflop(
    preset: Preset, route: Route | None = None, batch_size: int | None = None, device: torch.device = CPU
) -> float:
    """Of our step as it is on `device`, by default on its cheapest route."""
    apart = layers.takes_apart(device)
    with mock.patch.object(layers, "takes_apart", return_value=apart):
        return gflop(_step(preset, route), preset.architecture, batch_size or preset.batch_size)


def _step(preset: Preset, route: Route | None) -> Step:
    model = ALI(preset.architecture, kernels.resolve("inductor", "cpu"))
    return Step(model, learning_rate=preset.learning_rate, route=route, compile=False)


class _Traced(BaseException):
    """Not an Exception: those torch.compile would wrap."""

    def __init__(self, graph: GraphModule, inputs: Sequence[Tensor]):
        self.graph, self.inputs = graph, inputs


def _stop(graph: GraphModule, inputs: Sequence[Tensor]) -> Callable:
    raise _Traced(graph, inputs)


def traced_gflop(preset: Preset, route: Route | None = None) -> float:
    """Of what our step asks of a compiler: of a product and its gradients, what nobody reads is counted, too."""
    step, a = _step(preset, route), preset.architecture
    images = torch.zeros(COUNTED, a.image_size, a.image_size, a.image_channels, dtype=torch.uint8)
    torch._dynamo.reset()
    trace = torch.compile(step._turn, fullgraph=True, dynamic=False, backend=aot_autograd(fw_compiler=_stop))
    try:
        with torch._dynamo.config.patch(trace_autograd_ops=True):
            trace(images, *step.noise(COUNTED))
    except _Traced as traced:
        fake = next(t for t in traced.inputs if isinstance(t, FakeTensor))
        with fake.fake_mode, FlopCounterMode(display=False) as counter:
            Interpreter(traced.graph).run(*traced.inputs)
        return counter.get_total_flops() * preset.batch_size / COUNTED / 1e9
    raise AssertionError("torch.compile asked for no graph")


def usual_gflop(preset: Preset, batch_size: int) -> float:
    """Of the usual step."""
    step = UsualStep(preset.architecture, CPU, learning_rate=preset.learning_rate)
    return gflop(step, preset.architecture, batch_size)
