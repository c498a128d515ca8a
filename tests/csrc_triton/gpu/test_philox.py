"""The device functions on the device, through the ops: masks equal the twin's to the bit, normals to 1e-5."""

import pytest
import torch
from comparing import some_seeds

from csrc_triton import philox
from csrc_triton.bias_act import bias_act
from csrc_triton.reparametrize import reparametrize


@pytest.mark.parametrize("slot", range(4))
@pytest.mark.parametrize("shape", [(7, 3, 32, 32), (9, 20, 5, 5), (64, 512, 1, 1)])
def test_masks(shape, slot):
    x, seeds = torch.ones(shape, device="cuda").to(memory_format=torch.channels_last), some_seeds("cuda")
    y = bias_act(x, dropout=0.2, seeds=seeds, slot=slot, backend="triton")
    on_cpu = philox.channel_keep(some_seeds("cpu"), slot, 13107, shape)
    assert torch.equal(y.cpu() != 0, on_cpu.bool())
    assert torch.equal(philox.channel_keep(seeds, slot, 13107, shape).cpu(), on_cpu)


@pytest.mark.parametrize("slot", range(4))
def test_normals(slot):
    """libdevice's log and cos are not the CPU's."""
    params, z = torch.zeros(1000, 128, 1, 1, device="cuda"), torch.zeros(1000, 64, 1, 1, device="cuda")
    joint = reparametrize(params, z, seeds=some_seeds("cuda"), slot=slot, backend="triton")
    eps = philox.element_normals(some_seeds("cpu"), slot, 64000)[0]
    assert (joint[:1000].flatten().cpu() - eps).abs().max() < 1e-5
