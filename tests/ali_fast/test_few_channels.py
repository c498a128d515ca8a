"""Products with few maps against torch's own, forward and backward."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from in_float64 import BOUNDS, DEVICES, draw, error, hold

from ali_fast import capture, few_channels


@pytest.mark.parametrize(("dtype", "bound"), BOUNDS)
@pytest.mark.parametrize("maps", [1, 3])
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("large", [1, few_channels.LARGE])
def test_product(maps, device, large, dtype, bound, monkeypatch):
    monkeypatch.setattr(few_channels, "LARGE", large)
    inputs = [draw(*shape, dtype=dtype, device=device) for shape in ((2, 5, 7, 33), (maps, 33))]
    hold(few_channels.product, F.linear, inputs, bound)


@pytest.mark.parametrize(("device", "few", "pays"), [("cpu", 3, False), ("cuda", 3, True), ("cuda", 5, False)])
def test_only_a_gpu_and_few_channels_ask_for_it(device, few, pays):
    assert few_channels.pays(SimpleNamespace(device=torch.device(device)), few) is pays


@pytest.mark.parametrize(("dtype", "bound"), BOUNDS)
@pytest.mark.parametrize("large", [1, few_channels.LARGE])
def test_its_gradients_in_a_compiled_step(large, dtype, bound, monkeypatch):
    """torch 2.11 compiled them as zeros where the forward ended in a cast to the dtype that it had."""
    monkeypatch.setattr(few_channels, "LARGE", large)
    inputs = [draw(*shape, dtype=dtype) for shape in ((6, 33), (3, 33))]
    dy = draw(6, 3, dtype=dtype).detach()

    def step():
        y = few_channels.product(*inputs)
        return y.detach(), *torch.autograd.grad(y, inputs, dy)

    exact = [tensor.detach().double().requires_grad_() for tensor in inputs]
    y = F.linear(*exact)
    for a, b in zip(capture.compiled(step, dy.device)(), [y, *torch.autograd.grad(y, exact, dy.double())], strict=True):
        assert error(a, b) < bound
