"""reparametrize's launchers against float64 autograd: the same comparison in the interpreter and on a GPU."""

import torch
from comparing import assert_close, random_map, some_seeds
from hypothesis import strategies as st

from csrc_triton import philox
from csrc_triton.reparametrize import launch_backward, launch_forward, noise

SLOT = 2

# (N, L, dropout)
CASES = {
    "even sizes, dropped": (5, 64, 0.2),
    "even sizes": (5, 64, 0.0),
    "odd sizes": (7, 13, 0.5),
    "one element": (1, 1, 0.0),
    "one code": (1, 256, 0.2),
    "one unit": (33, 1, 0.2),
}
DRAWN = dict(n=st.integers(1, 40), units=st.integers(1, 70), dropout=st.sampled_from([0.0, 0.2, 0.5]))


def check(n, units, dropout, *, dtype, device):
    params = random_map((n, 2 * units, 1, 1), dtype, device)
    z = random_map((n, units, 1, 1), dtype, device, seed=1)
    g = random_map((2 * n, units, 1, 1), dtype, device, seed=2)
    seeds, threshold = some_seeds(device), philox.dropout_threshold(dropout)

    joint = launch_forward(params, z, threshold, seeds, SLOT)
    dparams = launch_backward(g, params, threshold, seeds, SLOT)

    eps, keep = noise(z, seeds, SLOT, threshold)
    params64 = params.double().requires_grad_()
    mu, log_sigma = params64.chunk(2, dim=1)
    joint64 = torch.cat([mu + log_sigma.exp() * eps.double(), z.double()])
    if keep is not None:
        joint64 = joint64 * keep / (1 - threshold / 65536)
    joint64.backward(g.double())

    assert_close(joint, joint64, "map", dtype, "z_joint")
    assert_close(dparams, params64.grad, "map", dtype, "dparams")
    assert joint.dtype == dparams.dtype == dtype and dparams.shape == params.shape
