"""Convolutions by patches against torch's own, forward and backward."""

import pytest
import torch
import torch.nn.functional as F

from ali_fast import patches

# channels, kernel, stride, height, width: of the larger side
CASES = [(3, 5, 1, 13, 9), (3, 4, 2, 12, 10), (1, 2, 1, 7, 7), (3, 3, 2, 10, 11), (4, 4, 3, 14, 11), (2, 1, 1, 5, 4)]
WHOLE = [case for case in CASES if all((size - case[1]) % case[2] == 0 for size in case[3:])]
BOUNDS = [(torch.float64, 1e-14), (torch.float32, 1e-6), (torch.bfloat16, 8e-3)]

GPU = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
DEVICES = ["cpu", pytest.param("cuda", marks=GPU)]


def gradients(function, inputs):
    y = function(*inputs)
    dy = torch.randn(y.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).to(y)
    return [y.detach(), *torch.autograd.grad(y, inputs, dy)]


def error(ours, exact):
    return float((ours.double() - exact).norm() / exact.norm())


def draw(*shape, dtype=torch.float64, device="cpu"):
    tensor = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(len(shape)))
    return tensor.to(device, dtype).to(memory_format=torch.channels_last).requires_grad_()


def hold_to(exact_function, function, inputs, bound):
    ours = gradients(function, inputs)
    exact = gradients(exact_function, [tensor.detach().double().requires_grad_() for tensor in inputs])
    for a, b in zip(ours, exact, strict=True):
        assert a.dtype == inputs[0].dtype
        assert a.shape == b.shape
        assert error(a, b) < bound


@pytest.mark.parametrize(("dtype", "bound"), BOUNDS)
@pytest.mark.parametrize(("channels", "k", "stride", "height", "width"), CASES)
@pytest.mark.parametrize("device", DEVICES)
def test_convolution(channels, k, stride, height, width, device, dtype, bound):
    inputs = [draw(*shape, dtype=dtype, device=device) for shape in ((2, channels, height, width), (6, channels, k, k))]
    hold_to(lambda h, w: F.conv2d(h, w, stride=stride), lambda h, w: patches.convolution(h, w, stride), inputs, bound)


@pytest.mark.parametrize(("dtype", "bound"), BOUNDS)
@pytest.mark.parametrize(("maps", "k", "stride", "height", "width"), WHOLE)
@pytest.mark.parametrize("device", DEVICES)
def test_transposed(maps, k, stride, height, width, device, dtype, bound):
    size = [(side - k) // stride + 1 for side in (height, width)]
    inputs = [draw(*shape, dtype=dtype, device=device) for shape in ((2, 6, *size), (6, maps, k, k))]
    hold_to(
        lambda h, w: F.conv_transpose2d(h, w, stride=stride),
        lambda h, w: patches.transposed(h, w, stride),
        inputs,
        bound,
    )


def test_each_gradient_can_be_had_alone():
    h, weight = draw(2, 3, 8, 8), draw(6, 3, 3, 3)
    for wanted in (h, weight):
        (ours,) = torch.autograd.grad(patches.convolution(h, weight, 1).sum(), [wanted])
        (exact,) = torch.autograd.grad(F.conv2d(h, weight).sum(), [wanted])
        assert error(ours, exact) < 1e-14
    constant = patches.convolution(h.detach(), weight, 1).sum()
    assert error(*(torch.autograd.grad(y, [weight])[0] for y in (constant, F.conv2d(h, weight).sum()))) < 1e-14


@pytest.mark.parametrize(
    ("device", "channels", "kernel", "stride", "size", "pays"),
    [
        ("cuda", 3, 5, 1, 32, True),
        ("cuda", 5, 5, 1, 32, False),
        ("cuda", 64, 4, 2, 10, False),
        ("cpu", 3, 5, 1, 32, False),
        ("cpu", 128, 4, 2, 10, True),  # of cifar10's E and D
        ("cpu", 64, 4, 2, 28, False),  # 3.4 times the map
        ("cpu", 32, 4, 2, 10, False),
        ("cpu", 64, 4, 1, 13, False),
    ],
)
def test_where_they_pay(device, channels, kernel, stride, size, pays, monkeypatch):
    case = torch.device(device), channels, kernel, stride, size
    assert patches.pay(*case) is (pays and device == "cuda")
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert patches.pay(*case) is pays
