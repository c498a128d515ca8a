"""A function's value and gradients, in any dtype and on any device, against torch's own in float64."""

import pytest
import torch

BOUNDS = [(torch.float64, 1e-14), (torch.float32, 1e-6), (torch.bfloat16, 8e-3)]
"""dtypes, and the relative error in each."""

GPU = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
DEVICES = ["cpu", pytest.param("cuda", marks=GPU)]


def draw(*shape, dtype=torch.float64, device="cpu"):
    tensor = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(len(shape)))
    return tensor.to(device, dtype).requires_grad_()


def draw_map(*shape, dtype=torch.float64, device="cpu"):
    """In channels-last memory."""
    return draw(*shape, dtype=dtype, device=device).detach().to(memory_format=torch.channels_last).requires_grad_()


def error(ours, exact):
    return float(((ours.double() - exact).norm() / exact.norm()).detach())


def hold(function, to, inputs, bound):
    """`function` of the inputs, forward and backward, to what `to` makes of them in float64."""
    ours = _gradients(function, inputs)
    exact = _gradients(to, [tensor.detach().double().requires_grad_() for tensor in inputs])
    for a, b in zip(ours, exact, strict=True):
        assert a.dtype == inputs[0].dtype
        assert a.shape == b.shape
        assert error(a, b) < bound


def _gradients(function, inputs):
    y = function(*inputs)
    dy = torch.randn(y.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).to(y)
    return [y.detach(), *torch.autograd.grad(y, inputs, dy)]
