"""Products with few maps against torch's own, forward and backward."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from in_float64 import BOUNDS, DEVICES, draw, hold

from ali_fast import few_channels


@pytest.mark.parametrize(("dtype", "bound"), BOUNDS)
@pytest.mark.parametrize("maps", [1, 3])
@pytest.mark.parametrize("device", DEVICES)
def test_product(maps, device, dtype, bound):
    inputs = [draw(*shape, dtype=dtype, device=device) for shape in ((2, 5, 7, 33), (maps, 33))]
    hold(few_channels.product, F.linear, inputs, bound)


@pytest.mark.parametrize(("device", "few", "pays"), [("cpu", 3, False), ("cuda", 3, True), ("cuda", 5, False)])
def test_only_a_gpu_and_few_channels_ask_for_it(device, few, pays):
    assert few_channels.pays(SimpleNamespace(device=torch.device(device)), few) is pays
