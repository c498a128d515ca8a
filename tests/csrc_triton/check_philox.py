"""The device functions through the ops that use them: masks equal the twin's to the bit, normals to 1e-5."""

import torch
from comparing import some_seeds

from csrc_triton import philox
from csrc_triton.bias_act import bias_act
from csrc_triton.reparametrize import reparametrize

THRESHOLD = 13107
SHAPES = [(7, 3, 32, 32), (9, 20, 5, 5), (64, 512, 1, 1)]


def check_masks(shape, slot, device):
    x, seeds = torch.ones(shape, device=device).to(memory_format=torch.channels_last), some_seeds(device)
    y = bias_act(x, dropout=0.2, seeds=seeds, slot=slot, backend="triton")
    on_cpu = philox.channel_keep(some_seeds("cpu"), slot, THRESHOLD, shape)
    assert torch.equal(y.cpu() != 0, on_cpu.bool())
    assert torch.equal(philox.channel_keep(seeds, slot, THRESHOLD, shape).cpu(), on_cpu)


def check_normals(slot, device):
    """libdevice's log and cos are not the CPU's."""
    params, z = torch.zeros(1000, 128, 1, 1, device=device), torch.zeros(1000, 64, 1, 1, device=device)
    joint = reparametrize(params, z, seeds=some_seeds(device), slot=slot, backend="triton")
    eps = philox.element_normals(some_seeds("cpu"), slot, 64000)[0]
    assert (joint[:1000].flatten().cpu() - eps).abs().max() < 1e-5
