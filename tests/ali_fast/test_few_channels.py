"""Products with few maps against torch's own, forward and backward."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from ali_fast import few_channels

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
