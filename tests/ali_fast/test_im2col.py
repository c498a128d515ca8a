"""Convolutions by patches against torch's own, forward and backward."""

import pytest
import torch
import torch.nn.functional as F
from in_float64 import BOUNDS, DEVICES, draw_map, error, hold

from ali_fast import capture, im2col
from ali_fast.arch import Row, layout
from ali_fast.layers import Convolution

# channels, kernel, stride, height, width: of the larger side
CASES = [(3, 5, 1, 13, 9), (3, 4, 2, 12, 10), (1, 2, 1, 7, 7), (3, 3, 2, 10, 11), (4, 4, 3, 14, 11), (2, 1, 1, 5, 4)]
WHOLE = [case for case in CASES if all((size - case[1]) % case[2] == 0 for size in case[3:])]


def convolution(h, weight, stride):
    return im2col.convolution(h, im2col.matrix(weight), weight.shape[2], stride)


@pytest.mark.parametrize(("dtype", "bound"), BOUNDS)
@pytest.mark.parametrize(("channels", "k", "stride", "height", "width"), CASES)
@pytest.mark.parametrize("device", DEVICES)
def test_convolution(channels, k, stride, height, width, device, dtype, bound):
    inputs = [
        draw_map(*shape, dtype=dtype, device=device) for shape in ((2, channels, height, width), (6, channels, k, k))
    ]
    hold(lambda h, w: convolution(h, w, stride), lambda h, w: F.conv2d(h, w, stride=stride), inputs, bound)


@pytest.mark.parametrize(("dtype", "bound"), BOUNDS)
@pytest.mark.parametrize(("maps", "k", "stride", "height", "width"), WHOLE)
@pytest.mark.parametrize("device", DEVICES)
def test_transposed(maps, k, stride, height, width, device, dtype, bound):
    size = [(side - k) // stride + 1 for side in (height, width)]
    inputs = [draw_map(*shape, dtype=dtype, device=device) for shape in ((2, 6, *size), (6, maps, k, k))]
    hold(
        lambda h, w: im2col.transposed(h, w, stride),
        lambda h, w: F.conv_transpose2d(h, w, stride=stride),
        inputs,
        bound,
    )


def test_each_gradient_can_be_had_alone():
    h, weight = draw_map(2, 3, 8, 8), draw_map(6, 3, 3, 3)
    for wanted in (h, weight):
        (ours,) = torch.autograd.grad(convolution(h, weight, 1).sum(), [wanted])
        (exact,) = torch.autograd.grad(F.conv2d(h, weight).sum(), [wanted])
        assert error(ours, exact) < 1e-14
    constant = convolution(h.detach(), weight, 1).sum()
    assert error(*(torch.autograd.grad(y, [weight])[0] for y in (constant, F.conv2d(h, weight).sum()))) < 1e-14


@pytest.mark.parametrize(
    ("device", "channels", "kernel", "stride", "size", "pays"),
    [
        ("cuda", 3, 5, 1, 32, True),
        ("cuda", 5, 5, 1, 32, False),
        ("cuda", 64, 4, 2, 10, False),
        ("cpu", 3, 5, 1, 32, False),
        ("cpu", 128, 4, 2, 10, True),  # of cifar10's E and G
        ("cpu", 64, 4, 2, 10, True),  # of its D
        ("cpu", 64, 4, 2, 28, False),  # 3.4 times the map
        ("cpu", 32, 4, 2, 10, False),
        ("cpu", 64, 4, 1, 13, False),
    ],
)
def test_where_they_pay(device, channels, kernel, stride, size, pays, monkeypatch):
    case = torch.device(device), channels, kernel, stride, size
    assert im2col.pays(*case) is (pays and device == "cuda")
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert im2col.pays(*case) is pays


@pytest.mark.parametrize("operation", ["conv", "transposed"])
def test_a_compiled_step_takes_them_on_a_cpu(operation):
    size, channels, maps = (6, 64, 3) if operation == "conv" else (3, 3, 64)
    row = Row(operation=operation, kernel=2, stride=2, maps=maps, activation="leaky_relu")
    (place,) = layout((row,), channels, size)
    product = Convolution(place).double()
    with torch.no_grad():
        product.weight.normal_(generator=torch.Generator().manual_seed(0))
    inputs = [draw_map(2, channels, size, size), product.weight]
    y = (F.conv2d if operation == "conv" else F.conv_transpose2d)(*inputs, stride=2)
    dy = draw_map(*y.shape).detach()

    def step():
        pays = torch.tensor(im2col.pays(dy.device, 64, 2, 2, 6))
        ours = product(inputs[0])
        return pays, ours.detach(), *torch.autograd.grad(ours, inputs, dy)

    pays, *ours = capture.compiled(step, dy.device)()
    assert pays
    for a, b in zip(ours, [y, *torch.autograd.grad(y, inputs, dy)], strict=True):
        assert error(a, b) < 1e-13
