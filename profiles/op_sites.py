"""Where the networks use csrc_triton's ops: each site's shape and settings, its call, and what its kernels cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ali_fast import kernels
from ali_fast.arch import Layout
from ali_fast.layers import BATCH_NORM_EPS, Biased, Maxout, Normalized, Stack
from ali_fast.model import ALI
from ali_fast.presets import Preset
from csrc_triton import adversarial_loss, batch_norm, bias_act, maxout, philox, reparametrize
from csrc_triton.launch import recorded_launches


@dataclass(frozen=True)
class Site:
    """One op in one place of a network. shape: of what it is given, [2N] for the loss."""

    op: str
    shape: tuple[int, ...]
    slope: float = 1.0
    dropout: float = 0.0
    order: str = "after"
    bias: bool = False

    def __str__(self) -> str:
        words = [self.op, "x".join(map(str, self.shape))]
        words += [f"drop {self.dropout:g}{' before' if self.order == 'before' else ''}"] if self.dropout else []
        return " ".join(words)


def sites(preset: Preset) -> Counter[Site]:
    """Every site of a network's step, and how often the forward pass meets it."""
    a, n = preset.architecture, preset.batch_size
    with torch.device("meta"):
        model = ALI(a, kernels.resolve("triton", "cpu"))
    d = model.discriminator
    stacks = {"encoder": model.encoder, "decoder": model.decoder}
    stacks |= {"discriminator_x": d.x, "discriminator_z": d.z, "discriminator_xz": d.xz}
    found = Counter(
        _activations(stacks, {name: n if name in ("encoder", "decoder") else 2 * n for name in stacks}, a.layouts())
    )
    if d.input_dropout:
        size = a.image_size
        found[Site("bias_act", (2 * n, a.image_channels, size, size), dropout=d.input_dropout)] += 1
    found[Site("reparametrize", (n, 2 * a.z_dim, 1, 1), dropout=model.z_dropout)] += 1
    found[Site("adversarial_loss", (2 * n,))] += 1
    return found


def _activations(
    stacks: Mapping[str, Stack], batch: Mapping[str, int], layouts: Mapping[str, Sequence[Layout]]
) -> Iterator[Site]:
    """batch: how many images each stack is given."""
    for name, stack in stacks.items():
        for activation, place in zip(stack.activations, layouts[name], strict=True):
            shape = (batch[name], place.row.maps, place.out_size, place.out_size)
            if isinstance(activation, Normalized):
                yield Site("batch_norm", shape, activation.slope, activation.dropout)
            elif isinstance(activation, Maxout):
                yield Site("maxout", shape, 1.0, activation.dropout, activation.order, activation.bias is not None)
            elif isinstance(activation, Biased):
                yield Site("bias_act", shape, activation.slope, activation.dropout, bias=activation.bias is not None)


# ---------------------------------------------------------------- the call


def arguments(site: Site, dtype: torch.dtype, device: torch.device) -> list[Tensor]:
    """seeds, the data, and what goes with it: uninitialised, and asking for gradients as in a step."""
    memory = torch.channels_last if len(site.shape) == 4 else torch.contiguous_format
    seeds = torch.empty(1, dtype=torch.int64, device=device)
    x = torch.empty(site.shape, dtype=dtype, device=device, memory_format=memory)
    if site.op == "adversarial_loss":
        return [seeds, x]
    x.requires_grad_()
    n, channels = site.shape[:2]
    if site.op == "reparametrize":
        return [seeds, x, torch.empty(n, channels // 2, 1, 1, dtype=dtype, device=device)]
    parameters = 2 if site.op == "batch_norm" else int(site.bias)
    return [seeds, x, *(torch.empty(channels, device=device, requires_grad=True) for _ in range(parameters))]


def function(site: Site, backend: str) -> Callable[..., tuple[Tensor, ...]]:
    """Of `arguments`: the op's outputs, of which the first has a gradient."""

    def call(seeds: Tensor, x: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        random: dict[str, Any] = dict(dropout=site.dropout, seeds=seeds, slot=0, backend=backend)
        if site.op == "batch_norm":
            weight, bias = rest
            return batch_norm.batch_norm(x, weight, bias, BATCH_NORM_EPS, site.slope, **random)
        if site.op == "maxout":
            return (maxout.maxout(x, rest[0] if rest else None, order=site.order, **random),)
        if site.op == "bias_act":
            return (bias_act.bias_act(x, rest[0] if rest else None, slope=site.slope, **random),)
        if site.op == "reparametrize":
            return (reparametrize.reparametrize(x, rest[0], **random),)
        return tuple(adversarial_loss.adversarial_loss(x, backend=backend))

    return call


# ---------------------------------------------------------------- what our kernels cost


class Cost(NamedTuple):
    """Launches, and bytes: each tensor that a launch is given counts once, read or written."""

    launches: int
    bytes: int


def our_cost(site: Site, dtype: torch.dtype) -> list[Cost]:
    """Of the forward, and of the backward where there is one; from the launchers themselves."""
    seeds, x, *rest = (t.detach() for t in arguments(site, dtype, torch.device("meta")))
    drop, bias = philox.dropout_threshold(site.dropout), rest[0] if site.bias else None
    outputs: list[Any] = []
    passes: list[Callable[[], object]]
    if site.op == "batch_norm":
        common = (rest[0], rest[1], BATCH_NORM_EPS, site.slope, drop, seeds, 0)
        passes = [
            lambda: outputs.extend(batch_norm.launch_forward(x, *common)),
            lambda: batch_norm.launch_backward(outputs[0], x, outputs[1], outputs[2], *common),
        ]
    elif site.op == "maxout":
        passes = [
            lambda: outputs.extend(maxout.launch_forward(x, bias, drop, site.order == "before", seeds, 0)),
            lambda: maxout.launch_backward(outputs[0], outputs[1], drop, site.bias),
        ]
    elif site.op == "bias_act":
        y = x if site.slope != 1.0 else None
        passes = [
            lambda: bias_act.launch_forward(x, bias, site.slope, drop, seeds, 0),
            lambda: bias_act.launch_backward(x, y, site.slope, drop, seeds, 0, site.bias),
        ]
    elif site.op == "reparametrize":
        passes = [
            lambda: outputs.append(reparametrize.launch_forward(x, rest[0], drop, seeds, 0)),
            lambda: reparametrize.launch_backward(outputs[0], x, drop, seeds, 0),
        ]
    else:
        passes = [lambda: adversarial_loss.launch_forward(x, None)]
    return [_cost(one) for one in passes]


def _cost(one_pass: Callable[[], object]) -> Cost:
    with recorded_launches() as record, _Sums() as sums:
        one_pass()
    tensors = [[t for t in launch.arguments.values() if isinstance(t, Tensor)] for launch in record]
    return Cost(len(record) + sums.count, sum(map(_bytes, tensors)) + sums.bytes)


def _bytes(tensors: list[Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


class _Sums(TorchDispatchMode):
    """torch's sums of the programs' partial sums are launches too."""

    count = bytes = 0

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        out = operator(*args, **(kwargs or {}))
        if operator.overloadpacket is torch.ops.aten.sum:
            self.count += 1
            self.bytes += _bytes([args[0], out])
        return out
