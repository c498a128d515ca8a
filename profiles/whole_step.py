"""The compiled part of the real step, lowered for a GPU that need not be there, and its kernels counted by kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ali_fast import kernels
from ali_fast.capture import GPU_OPTIONS, compiled
from ali_fast.model import ALI
from ali_fast.presets import Preset
from ali_fast.step import Step
from profiles.lowering import GPU, Lowered, by_kind, lowering

PRODUCTS = ("convolution", "GEMM")
"""Kinds that are arithmetic: everything else is what the target counts."""


def counts(preset: Preset, spec: str, options: Mapping[str, Any]) -> dict[str, int]:
    """GPU kernels of one step by kind, for `--kernels` spec in bf16 and a set of Inductor's options.

    "convolution" counts a backward, data and weights together, as one; "eager" is what the host launches beside the
    compiled parts; "Adam" are all kernels of the optimizer's.
    """
    step = Step(
        ALI(preset.architecture, kernels.resolve(spec, "sm_90")),
        learning_rate=1e-4,
        dtype=torch.bfloat16,
        compile=False,
    )
    outside = {"eager": _operations(lambda: step.noise(1))}
    turn, *adam = lower(step, preset.batch_size, options)
    return dict(by_kind(turn)) | outside | {"Adam": sum(by_kind(code).total() for code in adam)}


def others(kinds: Mapping[str, int]) -> int:
    """Kernels that are neither convolutions nor GEMMs, Adam apart."""
    return sum(count for kind, count in kinds.items() if kind not in (*PRODUCTS, "Adam"))


def lower(step: Step, batch_size: int, options: Mapping[str, Any]) -> list[str]:
    """The code that torch.compile would load for `step.turn` and for Adam's factors and update: every kernel's source,
    and `call`, which launches them.

    The step's tensors are replaced by fake ones on the GPU: it cannot be used afterwards.
    """
    a = step.model.architecture
    torch._C._set_only_lift_cpu_tensors(True)
    with lowering():
        _to_fake(step)
        shape = (batch_size, a.image_size, a.image_size, a.image_channels)
        images = torch.empty(shape, dtype=torch.uint8, device=GPU)
        adam = step.adam
        working = step.working
        parameters = [*working.generator_parameters(), *working.discriminator_parameters()]
        gradients = [torch.empty_like(p) for p in parameters]
        factor = torch.empty((), device=GPU)
        return [
            _code(options, step._turn, images, *step.noise(batch_size)),
            _code(GPU_OPTIONS, adam._factors),
            _code(GPU_OPTIONS, adam._update, 0, gradients, factor, factor, None),
        ]


def _code(options: Mapping[str, Any], function: Callable[..., Any], *arguments: Any) -> str:
    torch._dynamo.reset()
    try:
        compiled(function, GPU, options)(*arguments)
    except Lowered as lowered:
        return lowered.code
    raise AssertionError("Inductor wrote no code")


def _to_fake(step: Step) -> None:
    fakes: dict[int, Tensor] = {}

    def fake(t: Tensor) -> Tensor:
        if id(t) not in fakes:
            empty = torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device=GPU)
            fakes[id(t)] = nn.Parameter(empty) if isinstance(t, nn.Parameter) else empty
            fakes[id(fakes[id(t)])] = fakes[id(t)]  # modules share tensors
        return fakes[id(t)]

    for module in (*step.model.modules(), *step.working.modules()):
        stores: tuple[dict[str, Any], ...] = (module._parameters, module._buffers)
        for tensors in stores:
            for name, tensor in tensors.items():
                tensors[name] = None if tensor is None else fake(tensor)
    for owner in (step, step.adam):
        for name, value in vars(owner).items():
            if isinstance(value, Tensor):
                setattr(owner, name, fake(value))
            elif isinstance(value, list):
                setattr(owner, name, [fake(v) if isinstance(v, Tensor) else v for v in value])
    step.device = GPU


class _Operations(TorchDispatchMode):
    """Counts ATen's operations that compute something."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if not function.is_view and not function.__name__.startswith(("empty", "detach")):
            self.count += 1
        return function(*args, **(kwargs or {}))


def _operations(call: Callable[[], Any]) -> int:
    with _Operations() as operations:
        call()
    return operations.count
