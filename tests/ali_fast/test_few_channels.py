"""Products with few channels against torch's own, forward and backward."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from ali_fast import few_channels

CASES = [(3, 5, 1, 13, 9), (3, 4, 2, 12, 10), (1, 2, 1, 7, 7), (3, 3, 2, 10, 11), (4, 4, 3, 14, 11), (2, 1, 1, 5, 4)]

GPU = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
DEVICES = ["cpu", pytest.param("cuda", marks=GPU)]


def gradients(function, inputs):
    y = function(*inputs)
    dy = torch.randn(y.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).to(y)
    return [y.detach(), *torch.autograd.grad(y, inputs, dy)]


def error(ours, exact):
    return float((ours.double() - exact).norm() / exact.norm())


def draw(*shape, dtype=torch.float64):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(len(shape))).to(dtype)


def channels_last(tensor):
    return tensor.to(memory_format=torch.channels_last).requires_grad_()


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-14), (torch.float32, 1e-6), (torch.bfloat16, 8e-3)])
@pytest.mark.parametrize(("channels", "k", "stride", "height", "width"), CASES)
@pytest.mark.parametrize("device", DEVICES)
def test_convolution(channels, k, stride, height, width, device, dtype, bound):
    h = channels_last(draw(2, channels, height, width, dtype=dtype).to(device))
    weight = channels_last(draw(6, channels, k, k, dtype=dtype).to(device))
    ours = gradients(lambda h, w: few_channels.convolution(h, w, stride), [h, weight])
    exact = gradients(
        lambda h, w: F.conv2d(h, w, stride=stride), [t.detach().double().requires_grad_() for t in (h, weight)]
    )
    for a, b in zip(ours, exact, strict=True):
        assert a.dtype == dtype
        assert a.shape == b.shape
        assert error(a, b) < bound


def test_images_that_need_no_gradient_get_none():
    h, weight = draw(2, 3, 8, 8), channels_last(draw(6, 3, 3, 3))
    (ours,) = torch.autograd.grad(few_channels.convolution(h, weight, 1).sum(), [weight])
    (exact,) = torch.autograd.grad(F.conv2d(h, weight).sum(), [weight])
    assert error(ours, exact) < 1e-14


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-14), (torch.float32, 1e-6), (torch.bfloat16, 8e-3)])
@pytest.mark.parametrize("maps", [1, 3])
@pytest.mark.parametrize("device", DEVICES)
def test_product(maps, device, dtype, bound):
    inputs = [draw(*shape, dtype=dtype).to(device).requires_grad_() for shape in ((2, 5, 7, 33), (maps, 33))]
    ours = gradients(few_channels.product, inputs)
    exact = gradients(F.linear, [t.detach().double().requires_grad_() for t in inputs])
    for a, b in zip(ours, exact, strict=True):
        assert a.dtype == dtype
        assert error(a, b) < bound


@pytest.mark.parametrize(("device", "few", "pays"), [("cpu", 3, False), ("cuda", 3, True), ("cuda", 5, False)])
def test_only_a_gpu_and_few_channels_ask_for_it(device, few, pays):
    assert few_channels.pays(SimpleNamespace(device=torch.device(device)), few) is pays
